import Foundation
import Glibc
import Testing

@testable import MPaxosTopology

@Suite struct TopologyTests {
    static let smallest = """
        name = "test"
        [[replica]]
        id = 0
        peer = "tcp://127.0.0.1:7100"
        client = "tcp://127.0.0.1:7200"
        """

    static func parse(_ text: String) throws(TopologyError) -> Topology {
        try Topology(parsing: Array(text.utf8), file: "t.toml")
    }

    @Test func defaults() throws {
        let topology = try Self.parse(Self.smallest)
        #expect(topology.name == "test")
        #expect(topology.storage.directory == "/dev/shm/mpaxos/test")
        #expect(topology.storage.logSize == 64 << 20)
        #expect(topology.storage.stateSize == 256 << 20)
        #expect(topology.protocol.window == 64)
        #expect(topology.protocol.batchBytes == 65536)
        #expect(topology.protocol.batchDelayMicroseconds == 0)
        #expect(topology.protocol.heartbeatMilliseconds == 50)
        #expect(topology.protocol.suspectMilliseconds == 500)
        #expect(topology.client.sessions == 65536)
        #expect(topology.client.maxRequest == 1 << 20)
        #expect(topology.client.maxOutstanding == 16384)
        #expect(topology.client.socket == .router)
        #expect(topology.pipeline.threads == .auto)
        #expect(topology.pipeline.ioThreads == 1)
        let member = try #require(topology.replicas.first)
        #expect(member.peerBind == member.peer)
        #expect(member.clientBind == member.client)
        #expect(member.http == nil)
        #expect(member.acceptorPool == "/dev/shm/mpaxos/test/0/acceptor.pool")
        #expect(member.statePool == "/dev/shm/mpaxos/test/0/state.pool")
    }

    @Test func everyKey() throws {
        let topology = try Self.parse(
            """
            name = "all"
            [[replica]]
            id = 65535
            peer = "tcp://a.example:7100"
            client = "ipc:///tmp/client"
            http = "[::1]:7300"
            peer_bind = "tcp://*:7100"
            client_bind = "ipc:///tmp/bind"
            directory = "/own/"
            [[replica]]
            id = 7
            peer = "tcp://[fe80::1%eth0]:7100"
            client = "tcp://b.example:7200"
            [storage]
            directory = "/pools"
            log_size = "1GiB"
            state_size = 33554432
            [protocol]
            window = 1024
            batch_bytes = "4 MiB"
            batch_delay_us = 100
            heartbeat_ms = 10
            suspect_ms = 20
            [client]
            sessions = 16
            max_request = "16MiB"
            max_outstanding = 1
            socket = "rep"
            [pipeline]
            threads = "staged"
            io_threads = 2
            """)
        #expect(topology.replicas.map(\.id) == [7, 65535])
        #expect(topology.index(of: 65535) == 1)
        #expect(topology.index(of: 0) == nil)
        #expect(topology.replicas[0].acceptorPool == "/pools/7/acceptor.pool")
        let member = topology.replicas[1]
        #expect(member.statePool == "/own/65535/state.pool")
        #expect(member.peer.description == "tcp://a.example:7100")
        #expect(member.peerBind.description == "tcp://*:7100")
        #expect(member.client.description == "ipc:///tmp/client")
        #expect(member.clientBind.description == "ipc:///tmp/bind")
        #expect(member.http?.host == "::1")
        #expect(member.http?.description == "[::1]:7300")
        #expect(topology.storage.logSize == 1 << 30)
        #expect(topology.storage.stateSize == 32 << 20)
        #expect(topology.protocol.window == 1024)
        #expect(topology.protocol.batchBytes == 4 << 20)
        #expect(topology.protocol.batchDelayMicroseconds == 100)
        #expect(topology.protocol.heartbeatMilliseconds == 10)
        #expect(topology.protocol.suspectMilliseconds == 20)
        #expect(topology.client.sessions == 16)
        #expect(topology.client.maxRequest == 16 << 20)
        #expect(topology.client.maxOutstanding == 1)
        #expect(topology.client.socket == .rep)
        #expect(topology.pipeline.threads == .staged)
        #expect(topology.pipeline.ioThreads == 2)
    }

    /// On three hosts, each may serve HTTP at its own loopback, and bind to every interface.
    @Test func sameLoopbackOnSeveralHosts() throws {
        let replicas = (0..<3).map { id in
            """
            [[replica]]
            id = \(id)
            peer = "tcp://10.0.0.\(id):7100"
            client = "tcp://10.0.0.\(id):7200"
            http = "127.0.0.1:7300"
            peer_bind = "tcp://*:7100"
            client_bind = "tcp://*:7200"
            """
        }
        let topology = try Self.parse("name = \"hosts\"\n" + replicas.joined(separator: "\n"))
        #expect(topology.replicas.count == 3)
    }

    @Test func missingFile() {
        #expect(throws: TopologyError(file: "/no/such.toml", "cannot be read: No such file or directory")) {
            try Topology(contentsOf: "/no/such.toml")
        }
        #expect(throws: TopologyError(file: "/", "cannot be read: Is a directory")) {
            try Topology(contentsOf: "/")
        }
        #expect(throws: TopologyError(file: "/dev/zero", "is larger than 1 MiB: not a topology file")) {
            try Topology(contentsOf: "/dev/zero")
        }
    }

    /// It is waited for a while, and not for ever: a replica that reads its files again has other things to do.
    @Test func aPipeThatNobodyWritesIntoIsAnError() throws {
        let path = NSTemporaryDirectory() + "mpaxos-pipe-\(UInt32.random(in: 0...UInt32.max))"
        #expect(mkfifo(path, 0o600) == 0)
        defer { unlink(path) }
        #expect(throws: TopologyError(file: path, "cannot be read: it is a pipe into which nobody writes")) {
            try Topology.readAgain(path)
        }
        #expect(throws: TopologyError(file: path, "cannot be read: it is a pipe into which nobody writes")) {
            try ClientKeys(contentsOf: path)
        }
    }

    @Test(arguments: [
        ("12", 12), ("0", 0), ("1KiB", 1024), ("64 MiB", 64 << 20), ("3GiB", 3 << 30),
        ("8589934591GiB", 8_589_934_591 << 30),
    ])
    func sizes(text: String, bytes: Int) {
        #expect(ByteSize.parse(text) == bytes)
    }

    @Test(arguments: [
        "", "MiB", "-1", "+1", "1.5MiB", "1MB", "1M", "1 MiB ", " 1MiB", "1  MiB", "8589934592GiB", "1mib", "0x10",
    ])
    func notSizes(text: String) {
        #expect(ByteSize.parse(text) == nil)
    }

    @Test(arguments: [
        "tcp://127.0.0.1:1", "tcp://host-1.example:65535", "tcp://[::1]:7100", "tcp://*:7100", "ipc:///tmp/a b",
        "ipc://@abstract",
    ])
    func endpoints(text: String) {
        #expect(Endpoint(text)?.description == text)
    }

    @Test(arguments: [
        "", "127.0.0.1:7100", "tcp://", "tcp://host", "tcp://host:", "tcp://host:0", "tcp://host:65536",
        "tcp://host:-1",
        "tcp://host:+1", "tcp://:7100", "tcp://::1:7100", "tcp://[]:7100", "tcp://a b:7100", "tcp://a;b:7100",
        "tcp://a/b:7100",
        "udp://host:7100", "inproc://x", "ipc://", "ipc://*", "ipc://a\nb", "TCP://host:7100", "tcp://*a:7100",
        "ipc:///" + String(repeating: "x", count: 107),
    ])
    func notEndpoints(text: String) {
        #expect(Endpoint(text) == nil)
    }
}
