/// What a key is when the file leaves it out. The shipped topologies show the same values, commented; a test compares.
enum Defaults {
    static let directoryParent = "/dev/shm/mpaxos/"
    static let logSize = 64 * ByteSize.mebibyte
    static let stateSize = 256 * ByteSize.mebibyte

    static let window = 64
    static let batchBytes = 64 * ByteSize.kibibyte
    static let batchDelayMicroseconds = 0
    static let heartbeatMilliseconds = 50
    static let suspectMilliseconds = 500

    static let sessions = 65536
    static let maxRequest = ByteSize.mebibyte
    static let maxOutstanding = 16384
    static let socket = Topology.ClientOptions.Socket.router

    static let threads = Topology.Pipeline.Threads.auto
    static let ioThreads = 1

    static let peerInput = 64 * ByteSize.mebibyte
    static let clientInput = 64 * ByteSize.mebibyte
    static let messageSeconds = 30
    static let silenceSeconds = 30
    static let httpConnections = 64
}
