import MPaxosInvariants
import MPaxosPipeline
import MPaxosWire

/// The client port of a simulated replica: requests lie in it until the gateway takes them, replies leave by `send`.
final class SimulatedPort: ClientPort {
    private struct Request {
        let client: ClusterClient.Name
        let header: [UInt8]
        let body: [UInt8]
    }

    private var requests: [Request] = []
    private var isHeld = false
    /// By client.
    private var outstanding: [Int: Int] = [:]
    /// The request that the gateway looks at.
    private let memory: UnsafeMutableRawBufferPointer
    private let send: (_ client: ClusterClient.Name, _ header: [UInt8], _ body: [UInt8]) -> Bool

    /// - Parameters:
    ///   - largestBody: bytes of a body that can come.
    ///   - send: takes a reply; false when the client is gone.
    init(largestBody: Int, send: @escaping (_ client: ClusterClient.Name, _ header: [UInt8], _ body: [UInt8]) -> Bool) {
        self.send = send
        memory = .allocate(byteCount: clientHeaderSize + largestBody, alignment: 16)
    }

    deinit { memory.deallocate() }

    /// Something came from a client.
    func take(from client: ClusterClient.Name, header: [UInt8], body: [UInt8]) {
        requests.append(Request(client: client, header: header, body: body))
    }

    /// Whether a lane that watches the port would be woken.
    var wakes: Bool { !isHeld && !requests.isEmpty }

    /// Requests that are admitted and not answered, as the gateway counted them.
    var unanswered: Int { outstanding.values.reduce(0, +) }

    override func isReady(now: UInt64) -> Bool { !requests.isEmpty }

    override var hasMore: Bool { !requests.isEmpty }

    override func hold(_ isHeld: Bool) { self.isHeld = isHeld }

    override func receive(into envelope: UnsafeMutablePointer<Envelope>, now: UInt64) -> Reception {
        guard !requests.isEmpty else { return .nothing }
        let request = requests.removeFirst()
        envelope.pointee.clear()
        var name = request.client
        let fits = withUnsafeBytes(of: &name) { envelope.pointee.append($0) }
        invariant(fits && envelope.pointee.append(Self.nothing), "an envelope has room for a name and a delimiter")
        invariant(request.header.count <= clientHeaderSize, "a header is no longer than it is")
        memory.copyBytes(from: request.header)
        UnsafeMutableRawBufferPointer(rebasing: memory[clientHeaderSize...]).copyBytes(from: request.body)
        header = UnsafeRawBufferPointer(rebasing: memory[..<request.header.count])
        body = UnsafeRawBufferPointer(rebasing: memory[clientHeaderSize..<clientHeaderSize + request.body.count])
        return .request(frames: 2)
    }

    override func reply(
        to envelope: UnsafeRawBufferPointer, header: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer
    ) -> Bool { send(Self.name(in: envelope), Array(header), Array(body)) }

    override func outstanding(of envelope: UnsafeRawBufferPointer) -> Int {
        outstanding[Self.client(of: envelope)] ?? 0
    }

    override func admitted(_ envelope: UnsafeRawBufferPointer) {
        outstanding[Self.client(of: envelope), default: 0] += 1
    }

    override func answered(_ envelope: UnsafeRawBufferPointer) {
        outstanding[Self.client(of: envelope), default: 0] -= 1
    }

    private static func client(of envelope: UnsafeRawBufferPointer) -> Int { name(in: envelope).client }

    private static func name(in envelope: UnsafeRawBufferPointer) -> ClusterClient.Name {
        var frames = Envelope.Frames(envelope)
        guard let name = frames.next() else { broken("an envelope begins with its connection's name") }
        return name.loadUnaligned(as: ClusterClient.Name.self)
    }
}
