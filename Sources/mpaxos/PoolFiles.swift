import Glibc
import Topology

/// The two pools of one replica, as files.
struct PoolFiles {
    enum Presence {
        case none, both
        case one(present: String, missing: String)
    }

    private let member: Topology.Member

    init(of member: Topology.Member) { self.member = member }

    var presence: Presence {
        let (acceptor, state) = (member.acceptorPool, member.statePool)
        switch (Self.exists(acceptor), Self.exists(state)) {
        case (false, false): return .none
        case (true, true): return .both
        case (true, false): return .one(present: acceptor, missing: state)
        case (false, true): return .one(present: state, missing: acceptor)
        }
    }

    private static func exists(_ path: String) -> Bool {
        var status = stat()
        // Whatever is there, a dangling link too, is in the way.
        return lstat(path, &status) == 0
    }
}
