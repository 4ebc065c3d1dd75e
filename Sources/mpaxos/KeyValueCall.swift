import Topology
import Wire
struct KeyValueCall {
    let topology: Topology
    let timeout: Double
    func execute(_ command: KeyValueCommand) throws -> KeyValueReply { throw Failure(.noAnswer) }
}
