// swift-tools-version: 6.2
import PackageDescription

/// SwiftPM refuses two targets of one name among a package and all that it depends on. So that a package with a
/// `Client` or a `Storage` of its own can depend on this one, each module here has a prefix that its folder has not:
/// `Sources/Wire` is the module `MPaxosWire`.
func ours(_ names: [String]) -> [Target.Dependency] { names.map { .byName(name: "MPaxos" + $0) } }

func module(
    _ name: String, _ modules: [String] = [], _ products: [Target.Dependency] = [], settings: [SwiftSetting] = []
) -> Target {
    .target(
        name: "MPaxos" + name, dependencies: ours(modules) + products, path: "Sources/" + name, swiftSettings: settings)
}

func systemLibrary(_ name: String) -> Target { .systemLibrary(name: "MPaxos" + name, path: "Sources/" + name) }

func tests(
    of name: String, with modules: [String] = [], _ products: [Target.Dependency] = [], exclude: [String] = []
) -> Target {
    .testTarget(name: name + "Tests", dependencies: ours(modules) + products, exclude: exclude)
}

/// For `InPlace`.
let inPlace: [SwiftSetting] = [.enableExperimentalFeature("RawLayout")]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioHTTP = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let toml = Target.Dependency.product(name: "TOMLKit", package: "TOMLKit")

let package = Package(
    name: "mPaxosSM",
    products: [
        .executable(name: "mpaxos", targets: ["mpaxos"]),
        .library(name: "MPaxosSM", targets: ["MPaxosSM"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        systemLibrary("CZeroMQ"),
        systemLibrary("CPersistentMemory"),
        systemLibrary("CEpoll"),
        module("CSupport"),

        module("Invariants", ["CSupport"]),
        module("Consensus", ["Invariants"], settings: inPlace),
        module("Flow", ["Invariants"], settings: inPlace),
        module("Wire", ["Invariants", "Consensus"]),
        module("KeyValueFormat", ["Invariants"]),
        module("Queues", ["Invariants", "CSupport"]),
        module("Frames", ["Invariants", "CZeroMQ"]),
        module("Keys", ["Invariants", "CZeroMQ"]),
        module("Messaging", ["Invariants", "Keys", "Frames", "CZeroMQ"]),
        module("ZMTP", ["Invariants", "CEpoll"]),
        module("PersistentMemory", ["Invariants", "CPersistentMemory", "CSupport"]),
        module("Storage", ["Invariants", "PersistentMemory", "Consensus"]),
        module("StateMachines", ["Invariants", "PersistentMemory", "KeyValueFormat"]),
        module("Topology", ["Keys"], [toml]),
        module("Simulation", ["Invariants", "CSupport", "Consensus", "Flow"]),
        module("Client", ["Invariants", "Wire", "KeyValueFormat", "Keys", "Frames", "Messaging", "Topology"]),
        module(
            "LoadGenerator", ["Invariants", "Keys", "Frames", "Messaging", "Wire", "KeyValueFormat", "ZMTP"],
            [histogram]),
        module("Metrics", ["Invariants", "CSupport"]),
        module(
            "StateTransfer", ["Invariants", "Consensus", "Wire", "PersistentMemory", "Storage", "Metrics"], [logging]),
        module(
            "Pipeline",
            [
                "Invariants", "Consensus", "Flow", "Wire", "Queues", "Frames", "PersistentMemory", "Storage",
                "StateMachines", "StateTransfer", "Metrics",
            ], [logging]),
        module(
            "Links", ["Invariants", "Consensus", "Wire", "Queues", "Frames", "Pipeline", "Metrics"], [logging]),
        module(
            "ClusterSimulation",
            [
                "Invariants", "CSupport", "Consensus", "Wire", "KeyValueFormat", "Queues", "Frames", "PersistentMemory",
                "Storage", "StateMachines", "StateTransfer", "Pipeline", "Links", "Metrics", "Simulation",
            ], [logging]),
        module(
            "Transport",
            [
                "Invariants", "CSupport", "Wire", "Keys", "Frames", "Messaging", "ZMTP", "Topology", "Pipeline",
                "Links", "Metrics",
            ], [logging]),
        module(
            "Status", ["Invariants", "CSupport", "Keys", "Topology", "Metrics"],
            [logging, nioCore, nioPosix, nioHTTP, nioSSL]),
        module(
            "Replica",
            [
                "Invariants", "CSupport", "Consensus", "Wire", "Queues", "Messaging", "PersistentMemory", "Storage",
                "StateMachines", "Topology", "Pipeline", "StateTransfer", "Links", "Transport", "Status", "Metrics",
            ], [logging]),
        .target(
            name: "MPaxosSM",
            dependencies: ours(["Replica", "StateMachines", "Client", "KeyValueFormat", "Keys", "Topology"]) + [logging]
        ),
        .executableTarget(
            name: "mpaxos",
            dependencies: ours([
                "Invariants", "Replica", "Client", "LoadGenerator", "Simulation", "ClusterSimulation", "Topology",
                "Storage",
                "StateMachines", "PersistentMemory", "Keys", "Wire", "KeyValueFormat", "Status",
            ]) + [argumentParser, logging]),

        tests(of: "Architecture"),
        tests(of: "Invariants", with: ["Invariants", "CSupport"]),
        tests(of: "Consensus", with: ["Consensus", "Simulation"]),
        tests(of: "Flow", with: ["Flow"]),
        tests(of: "Wire", with: ["Wire", "KeyValueFormat", "Consensus"]),
        tests(of: "Queues", with: ["Queues"]),
        tests(of: "Keys", with: ["Keys"]),
        tests(of: "Messaging", with: ["Keys", "Frames", "Messaging"]),
        tests(of: "ZMTP", with: ["ZMTP", "Frames", "Messaging"]),
        tests(of: "PersistentMemory", with: ["PersistentMemory"]),
        tests(of: "Storage", with: ["Storage", "StateMachines", "PersistentMemory", "Consensus"]),
        tests(of: "StateMachines", with: ["StateMachines", "KeyValueFormat", "PersistentMemory"]),
        tests(of: "Topology", with: ["Keys", "Topology"]),
        tests(of: "Client", with: ["Client", "Keys", "Wire", "KeyValueFormat", "Frames", "Messaging", "Topology"]),
        tests(
            of: "LoadGenerator",
            with: ["LoadGenerator", "Keys", "Wire", "KeyValueFormat", "Frames", "Messaging", "ZMTP"]),
        tests(
            of: "Links",
            with: [
                "Invariants", "Consensus", "Wire", "Queues", "Frames", "Pipeline", "Metrics", "Links",
                "ClusterSimulation",
            ], [logging]),
        tests(
            of: "StateTransfer",
            with: [
                "Consensus", "Wire", "Queues", "Frames", "Messaging", "PersistentMemory", "Storage", "Pipeline",
                "StateTransfer", "Metrics",
            ], [logging]),
        tests(
            of: "Pipeline",
            with: [
                "CSupport", "Consensus", "Wire", "Queues", "Frames", "Messaging", "PersistentMemory", "Storage",
                "StateMachines", "StateTransfer", "Pipeline", "Metrics",
            ], [logging]),
        tests(
            of: "Transport",
            with: [
                "CSupport", "Consensus", "Wire", "Keys", "Queues", "Frames", "Messaging", "PersistentMemory", "Storage",
                "Topology", "Pipeline", "Links", "Transport", "Metrics",
            ], [logging]),
        tests(
            of: "Status",
            with: ["CSupport", "Consensus", "PersistentMemory", "Storage", "Topology", "Status", "Metrics"],
            [logging, nioCore, nioPosix, nioSSL]),
        tests(
            of: "Replica",
            with: [
                "Invariants", "CSupport", "Consensus", "Wire", "Queues", "PersistentMemory", "Storage",
                "StateMachines", "Topology", "Client", "Pipeline", "Replica", "Metrics",
            ], [logging]),
        tests(
            of: "ClusterSimulation",
            with: ["ClusterSimulation", "Simulation", "Consensus", "Pipeline", "Wire", "Storage", "PersistentMemory"]),
        tests(of: "EndToEnd", exclude: ["scenarios"]),
    ],
    swiftLanguageModes: [.v6]
)
