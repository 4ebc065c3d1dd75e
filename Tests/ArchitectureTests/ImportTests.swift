import Foundation
import Testing

/// Who may import whom: the table of the architecture, held against the sources.
@Suite struct ImportTests {
    /// What each module may import, apart from the system's modules. `Package.swift` cannot be the judge: it allows
    /// whatever a dependency drags in.
    static let allowed: [String: Set<String>] = [
        "Invariants": ["CSupport"],
        "Consensus": ["Invariants"],
        "Flow": ["Invariants"],
        "Wire": ["Invariants", "Consensus"],
        "KeyValueFormat": ["Invariants"],
        "Queues": ["Invariants", "CSupport"],
        "Frames": ["Invariants", "CZeroMQ"],
        "Keys": ["Invariants", "CZeroMQ"],
        "Messaging": ["Invariants", "Keys", "Frames", "CZeroMQ"],
        "ZMTP": ["Invariants", "CEpoll"],
        "PersistentMemory": ["Invariants", "CPersistentMemory", "CSupport"],
        "Storage": ["Invariants", "PersistentMemory", "Consensus"],
        "StateMachines": ["Invariants", "PersistentMemory", "KeyValueFormat"],
        "Topology": ["Keys", "TOMLKit"],
        "Simulation": ["Invariants", "CSupport", "Consensus", "Flow"],
        "Metrics": ["Invariants", "CSupport"],
        "StateTransfer": [
            "Invariants", "Consensus", "Wire", "PersistentMemory", "Storage", "Metrics", "Logging",
        ],
        "Pipeline": [
            "Invariants", "Consensus", "Flow", "Wire", "Queues", "Frames", "PersistentMemory", "Storage",
            "StateMachines", "StateTransfer", "Metrics", "Logging",
        ],
        "Links": ["Invariants", "Consensus", "Wire", "Queues", "Frames", "Pipeline", "Metrics", "Logging"],
        "ClusterSimulation": [
            "Invariants", "CSupport", "Consensus", "Wire", "KeyValueFormat", "Queues", "Frames", "PersistentMemory",
            "Storage", "StateMachines", "StateTransfer", "Pipeline", "Links", "Metrics", "Simulation", "Logging",
        ],
        "Transport": [
            "Invariants", "CSupport", "Wire", "Keys", "Frames", "Messaging", "ZMTP", "Topology", "Pipeline", "Links",
            "Metrics", "Logging",
        ],
        "Status": [
            "Invariants", "CSupport", "Keys", "Topology", "Metrics", "Logging", "NIOCore", "NIOHTTP1", "NIOPosix",
            "NIOSSL",
        ],
        "Replica": [
            "Invariants", "CSupport", "Consensus", "Wire", "Queues", "Messaging", "PersistentMemory", "Storage",
            "StateMachines", "Topology", "Pipeline", "StateTransfer", "Links", "Transport", "Status", "Metrics",
            "Logging",
        ],
        "Client": ["Invariants", "Wire", "KeyValueFormat", "Keys", "Frames", "Messaging", "Topology"],
        "MPaxosSM": ["Client", "KeyValueFormat", "Keys", "Logging", "Replica", "StateMachines", "Topology"],
        "LoadGenerator": ["Invariants", "Keys", "Frames", "Messaging", "Wire", "KeyValueFormat", "ZMTP", "Histogram"],
        "mpaxos": [
            "Invariants", "Replica", "Client", "LoadGenerator", "Simulation", "ClusterSimulation", "Topology",
            "Storage", "StateMachines", "PersistentMemory", "Keys", "Wire", "KeyValueFormat", "Status",
            "ArgumentParser", "Logging",
        ],
    ]

    /// Modules of the toolchain: free for all but the core and the windows of its links, which are pure state machines:
    /// of what is around them they know `Invariants` alone.
    static let system: Set<String> = [
        "Musl", "Swift", "Synchronization", "Glibc", "Foundation", "FoundationEssentials", "Dispatch",
    ]

    static let pure: Set<String> = ["Consensus", "Flow"]

    /// Modules that have neither sockets nor threads, files nor a clock: a simulator runs them as the node does.
    static let simulated: Set<String> = ["Pipeline", "StateTransfer", "Links"]
    static let systemOfSimulated: Set<String> = ["Swift", "Synchronization"]

    /// Targets of C: no Swift in them.
    static let foreign: Set<String> = ["CSupport", "CZeroMQ", "CPersistentMemory", "CEpoll"]

    @Test func everyModuleIsKnown() throws {
        let folders = Set(try SourceTree.modules())
        #expect(folders == Set(Self.allowed.keys).union(Self.foreign))
    }

    @Test(arguments: allowed.keys.sorted())
    func importsOnlyWhatItMay(module: String) throws {
        let files = try SourceTree.files(under: "Sources/\(module)", named: [".swift"])
        #expect(!files.isEmpty, "no Swift file in Sources/\(module)")
        let system =
            Self.pure.contains(module) ? [] : Self.simulated.contains(module) ? Self.systemOfSimulated : Self.system
        let permitted = try #require(Self.allowed[module]).union(system)
        for file in files {
            for name in imports(in: try SourceTree.text(of: file)).map(folder(of:)) where !permitted.contains(name) {
                Issue.record("\(file) imports \(name), which \(module) may not")
            }
        }
    }

    @Test(arguments: [
        ("import Foo", ["Foo"]), ("  @testable import Foo", ["Foo"]), ("@preconcurrency import Foo.Bar", ["Foo"]),
        ("public import struct Foo.Bar", ["Foo"]), ("package import Foo // why", ["Foo"]),
        ("import A; import B", ["A", "B"]),
        ("@_spi(Testing) import Foo", ["Foo"]), ("internal\timport\tFoo", ["Foo"]), ("// import Foo", []),
        ("#if canImport(Foo)", []), ("let importance = 1", []), ("important()", []),
        ("import Foo\nlet x = 1\nimport Bar", ["Foo", "Bar"]),
    ])
    func readsImports(text: String, names: [String]) {
        #expect(imports(in: text) == names)
    }

    /// A module of ours is named after its folder, with a prefix.
    private func folder(of module: String) -> String {
        let folder = module.hasPrefix("MPaxos") ? String(module.dropFirst("MPaxos".count)) : module
        return Self.allowed[folder] != nil || Self.foreign.contains(folder) ? folder : module
    }

    /// Names of the modules that `text`, a Swift file, imports. Line by line: no import of this project spans two.
    private func imports(in text: String) -> [String] {
        let attributesAndAccess = #"(?:@\w+(?:\([^)]*\))?\s+|(?:public|package|internal|fileprivate|private)\s+)*"#
        let kind = #"(?:(?:struct|class|enum|protocol|func|var|let|typealias)\s+)?"#
        let pattern = try! Regex(#"^\s*"# + attributesAndAccess + #"import\s+"# + kind + #"(\w+)"#)
        return text.split(whereSeparator: \.isNewline).flatMap { $0.split(separator: ";") }.compactMap { statement in
            statement.firstMatch(of: pattern)?.output[1].substring.map(String.init)
        }
    }
}
