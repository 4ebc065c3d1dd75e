import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.zeromq.SocketType;
import org.zeromq.ZCert;
import org.zeromq.ZConfig;
import org.zeromq.ZContext;
import org.zeromq.ZMQ;

/**
 * A client of MPX/1 with a key, on JeroMQ (0.5 or later), which has an implementation of CURVE of its own: one OPEN, SUBMIT and QUERY
 * of the key-value service.
 *
 *     java -cp CLASSES CurveClient.java ENDPOINT KEY-FILE PUBLIC-KEY-OF-THE-REPLICA
 *
 * Exit code 0 when each answer was as it must be; else 1, with a line that says which was not. Written from docs/client-protocol.md.
 */
public final class CurveClient {
    private static final byte OPEN = 1, SUBMIT = 2, QUERY = 3;

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) fail("usage: CurveClient ENDPOINT KEY-FILE PUBLIC-KEY-OF-THE-REPLICA");
        ZConfig file = ZConfig.load(arguments[1]);
        ZCert pair = new ZCert(file.getValue("curve/public-key"), file.getValue("curve/secret-key"));
        try (ZContext context = new ZContext()) {
            ZMQ.Socket socket = context.createSocket(SocketType.REQ);
            pair.apply(socket);
            socket.setCurveServerKey(arguments[2].getBytes(StandardCharsets.US_ASCII));
            socket.setReceiveTimeOut(10_000);
            socket.setLinger(0);
            socket.connect(arguments[0]);

            long session = call(socket, "OPEN", OPEN, 0, 1, "", "");
            if (session == 0) fail("OPEN gave no session");
            // Operation, length of the key (u32), key; and the value.
            call(socket, "SUBMIT", SUBMIT, session, 1, "P\6\0\0\0jeromqhello", "\0");
            call(socket, "QUERY", QUERY, 0, 2, "G\6\0\0\0jeromq", "\1hello");
        }
    }

    /** Sends one request, and ends the program unless it is answered with OK and the bytes expected. Returns the session of the reply. */
    private static long call(
            ZMQ.Socket socket, String what, byte command, long session, long sequence, String body, String expected) {
        ByteBuffer header = ByteBuffer.allocate(32).order(ByteOrder.LITTLE_ENDIAN);
        header.put(bytes("MPX1")).put(command).put((byte) 0).putShort((short) 0).putLong(session).putLong(sequence);
        socket.sendMore(header.array());
        socket.send(bytes(body));
        byte[] reply = socket.recv();
        if (reply == null) fail(what + ": no answer");
        byte[] found = socket.recv();
        if (reply.length != 32 || !Arrays.equals(Arrays.copyOf(reply, 4), bytes("MPX1")) || reply[4] != 0) fail(what);
        if (!Arrays.equals(found, bytes(expected))) fail(what + ": " + Arrays.toString(found));
        return ByteBuffer.wrap(reply).order(ByteOrder.LITTLE_ENDIAN).getLong(8);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    private static void fail(String what) {
        System.err.println("CurveClient: " + what);
        System.exit(1);
    }
}
