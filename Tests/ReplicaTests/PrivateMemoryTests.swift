import Foundation
import Testing

@testable import MPaxosReplica

@Suite struct PrivateMemoryTests {
    private static let mebibyte = 1 << 20

    @Test(
        arguments: [
            // Of the host, of the control group, replicas, MiB.
            (64 << 10, nil, 1, 8 << 10), (64 << 10, nil, 3, 8 << 10), (64 << 10, nil, 9, (64 << 10) / 18),
            (64 << 10, 4 << 10, 1, 512), (64 << 10, 4 << 10, 9, (4 << 10) / 18), (4 << 10, 64 << 10, 1, 512),
            (1 << 10, nil, 1, 256), (64 << 10, 300, 1, 150), (64 << 10, 300, 3, 50), (64 << 10, 64, 9, 16),
        ] as [(Int, Int?, Int, Int)])
    func partOfWhatThereIs(host: Int, cgroup: Int?, replicas: Int, expected: Int) {
        let memory = PrivateMemory(
            host: host * Self.mebibyte, cgroup: cgroup.map { $0 * Self.mebibyte }, replicas: replicas)
        #expect(memory.limit / Self.mebibyte == expected)
        #expect(memory.description.contains("\(expected) MiB"))
        #expect(memory.description.contains("cgroup") == ((cgroup ?? .max) < host))
    }

    private func limit(_ files: [String: String]) throws -> Int? {
        let root = FileManager.default.temporaryDirectory.appending(
            path: "mpaxos-cgroup-\(UInt64.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: root) }
        for (path, text) in files {
            let file = root.appending(path: path)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }
        return HostMemory.limitOfControlGroup(root: root.path)
    }

    @Test func theLeastOfTheGroupAndThoseAboveIt() throws {
        #expect(try limit([:]) == nil)
        let second = ["proc/self/cgroup": "0::/a.slice/b.service\n"]
        #expect(try limit(second) == nil)
        #expect(try limit(second.merging(["sys/fs/cgroup/a.slice/b.service/memory.max": "max\n"]) { $1 }) == nil)
        let limited = second.merging([
            "sys/fs/cgroup/a.slice/b.service/memory.max": "5000\n", "sys/fs/cgroup/a.slice/memory.max": "4000\n",
        ]) { $1 }
        #expect(try limit(limited) == 4000)
        // In a container the group's own folder is the root of what is mounted.
        #expect(try limit(second.merging(["sys/fs/cgroup/memory.max": "3000\n"]) { $1 }) == 3000)
        let first = ["proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/x/y\n0::/\n"]
        #expect(
            try limit(first.merging(["sys/fs/cgroup/memory/x/y/memory.limit_in_bytes": "2000\n"]) { $1 }) == 2000)
        #expect(try limit(first.merging(["sys/fs/cgroup/memory.max": "1000\n"]) { $1 }) == 1000)
    }
}
