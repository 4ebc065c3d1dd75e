import MPaxosKeyValueFormat
import MPaxosPersistentMemory

@testable import MPaxosStateMachines

/// What holds of any bytes that reach the key-value service as a body: a command that is accepted is the one that
/// encodes to it; what validation refuses, execution refuses too; and a command that is taken back leaves nothing. Used
/// by the tests and by `scripts/fuzz`.
final class KeyValueProperties {
    private let store: TestStore
    private let service: KeyValueService
    private var reply = Reply(maxRequest: 1 << 16)

    /// A store with some keys, which stays as it is: every command is taken back.
    init() throws {
        store = try TestStore(megabytes: 2)
        service = KeyValueService(in: store.transaction)
        for body in [Body.put("key", "value"), Body.put("number", Int64(3).littleEndianBytes), Body.put("k", "")] {
            _ = try store.apply(body, to: service)
        }
        store.transaction.commit()
    }

    func check(_ body: UnsafeRawBufferPointer) throws(Violation) -> Bool {
        let asSubmit = try check(body, as: .submit)
        let asQuery = try check(body, as: .query)
        return asSubmit || asQuery
    }

    private func check(_ body: UnsafeRawBufferPointer, as kind: CommandKind) throws(Violation) -> Bool {
        let isValid = KeyValueService.validate(body, as: kind) == nil
        let parsed = try? KeyValueRequest(body, isQuery: kind == .query)
        try hold(isValid == (parsed != nil), "validation and parsing disagree")
        if let parsed { try hold(Self.encoded(parsed).elementsEqual(body), "a command encodes to other bytes") }

        reply.removeAll()
        var refused = false
        if kind == .submit {
            let digest = store.digest()
            store.transaction.beginCommand()
            do throws(Refusal) {
                try service.apply(body, in: store.transaction, reply: &reply)
            } catch {
                refused = true
            }
            store.transaction.rollbackCommand()
            try hold(store.digest() == digest, "a command that was taken back left something")
        } else {
            store.transaction.readOnly = true
            service.query(body, in: store.transaction, reply: &reply)
            store.transaction.readOnly = false
        }
        guard !refused else { return isValid }
        guard let tag = reply.bytes.first else { throw Violation(description: "no reply") }
        try hold(isValid ? tag <= 2 : tag == 2, "a reply with tag \(tag) to a body that is valid: \(isValid)")
        return isValid
    }

    private static func encoded(_ command: KeyValueRequest) -> [UInt8] {
        let key = Array(command.key)
        switch command.operation {
        case .put(let value): return Body.put(key, Array(value))
        case .get: return Body.make("G", key: key)
        case .delete: return Body.make("D", key: key)
        case .compareAndSwap(let expected, let value):
            return Body.swap(key, expecting: expected.map { Array($0) }, to: Array(value))
        case .append(let suffix): return Body.make("A", key: key, Array(suffix))
        case .add(let delta): return Body.make("I", key: key, delta.littleEndianBytes)
        case .scan(let limit): return Body.make("S", key: key, limit.littleEndianBytes)
        }
    }
}
