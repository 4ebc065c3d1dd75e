import MPaxosKeys

/// A cluster as its topology file describes it: one TOML file for all replicas, the same bytes on every host.
///
/// A value of this type has been checked whole: keys known, of the right type and in range, ids and endpoints unique.
public struct Topology: Sendable {
    /// The file it was read from, as it was named.
    public let file: String

    /// The cluster's identity, with the replica ids: 1 to 255 bytes. Pools and peers of another name are refused.
    public let name: String

    /// The members, sorted by ascending id: 1 to 9. The leader of view v is the one at index v mod N.
    public let replicas: [Member]

    public let storage: Storage
    public let `protocol`: ProtocolOptions
    public let client: ClientOptions
    public let pipeline: Pipeline
    public let limits: Limits
    public let http: HTTPOptions
    public let security: Security

    /// One replica: where others find it, where it binds and where its pools are.
    public struct Member: Sendable {
        /// Unique, stable for the life of the cluster.
        public let id: UInt16
        /// Where the other replicas connect.
        public let peer: Endpoint
        /// Where clients connect; what REDIRECT names.
        public let client: Endpoint
        /// Where this replica binds for its peers; `peer` unless the file says otherwise.
        public let peerBind: Endpoint
        /// Where this replica binds for clients; `client` unless the file says otherwise.
        public let clientBind: Endpoint
        /// Where /metrics, /healthz and /status are served; nil for nowhere.
        public let http: Address?
        /// What it is known by where the cluster has keys; two while its key is rotated, the one in use first.
        public let publicKeys: [PublicKey]
        /// The folder of this replica's own pools, `<directory>/<id>`.
        public let folder: String

        /// The pool of promises and accepted batches.
        public var acceptorPool: String { folder + "/acceptor.pool" }
        /// The pool of the replicated state.
        public var statePool: String { folder + "/state.pool" }
    }

    public struct Storage: Sendable {
        /// Where pools are, unless a replica has a directory of its own.
        public let directory: String
        /// Bytes of an acceptor pool.
        public let logSize: Int
        /// Bytes of a state pool.
        public let stateSize: Int
    }

    public struct ProtocolOptions: Sendable {
        /// Instances in flight, 1 to 1024.
        public let window: Int
        /// Bytes at which a batch closes; a larger request makes a batch of its own.
        public let batchBytes: Int
        /// How long a batch waits for company, in microseconds; 0: it closes as soon as the pipeline can take it.
        public let batchDelayMicroseconds: Int
        public let heartbeatMilliseconds: Int
        /// Silence after which a leader is suspected, before a random part is added.
        public let suspectMilliseconds: Int
    }

    public struct ClientOptions: Sendable {
        /// Sessions kept before the one used longest ago is evicted.
        public let sessions: Int
        /// The largest BODY of a request, in bytes.
        public let maxRequest: Int
        /// Requests a replica has admitted and not answered; beyond it: BUSY.
        public let maxOutstanding: Int
        public let socket: Socket
        public let security: Security

        /// How clients are told apart from strangers.
        public enum Security: String, Sendable, CaseIterable {
            /// Not at all.
            case none
            /// By their keys: CURVE, through a socket of libzmq.
            case curve
        }

        public enum Socket: String, Sendable, CaseIterable {
            /// The asynchronous REP side: many clients at once.
            case router
            /// The same through a ROUTER of libzmq.
            case libzmqRouter = "libzmq-router"
            /// A literal lock-step REP socket: one request at a time.
            case rep
        }
    }

    public struct Pipeline: Sendable {
        public let threads: Threads
        /// I/O threads of the ZeroMQ context.
        public let ioThreads: Int

        public enum Threads: String, Sendable, CaseIterable {
            /// Chosen by the number of cores.
            case auto
            /// All stages on one thread.
            case fused
            /// A thread for each stage.
            case staged
        }
    }

    /// What strangers, clumsy clients and the host may cost a replica. All bounds, these and the fixed ones, are in
    /// `docs/limits.md`.
    public struct Limits: Sendable {
        /// Bytes of unfinished input that all connections to the peer port hold together.
        public let peerInput: Int
        /// The same of the client port.
        public let clientInput: Int
        /// Seconds for the whole of a message, from its first byte on.
        public let messageSeconds: Int
        /// Seconds of silence after which a connection is taken for dead.
        public let silenceSeconds: Int
        /// HTTP connections at once.
        public let httpConnections: Int
        /// Bytes of DRAM for the changed pages of the state; nil: a part of what the host, or the cgroup, allows.
        public let privateMemory: Int?
    }

    /// The place of a replica in `replicas`: what the protocol counts in.
    /// - Returns: nil when the cluster has no such replica.
    public func index(of id: UInt16) -> Int? {
        replicas.firstIndex { $0.id == id }
    }

    /// How many replicas run on the host of the one at `index`, itself included, as far as peer endpoints tell.
    public func replicasOnHost(of index: Int) -> Int {
        replicas.count { $0.id == replicas[index].id || $0.sharesHost(with: replicas[index]) }
    }
}
