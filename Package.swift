// swift-tools-version: 6.2
import PackageDescription

/// For `InPlace`.
let inPlace: [SwiftSetting] = [.enableExperimentalFeature("RawLayout")]

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
        .systemLibrary(name: "CZeroMQ"),
        .systemLibrary(name: "CPersistentMemory"),
        .systemLibrary(name: "CEpoll"),
        .target(name: "CSupport"),

        .target(name: "Invariants", dependencies: ["CSupport"]),
        .target(name: "Consensus", dependencies: ["Invariants"], swiftSettings: inPlace),
        .target(name: "Flow", dependencies: ["Invariants"], swiftSettings: inPlace),
        .target(name: "Wire", dependencies: ["Invariants", "Consensus"]),
        .target(name: "Queues", dependencies: ["Invariants", "CSupport"]),
        .target(name: "Keys", dependencies: ["Invariants", "CZeroMQ"]),
        .target(name: "Messaging", dependencies: ["Invariants", "Keys", "CZeroMQ"]),
        .target(name: "ZMTP", dependencies: ["Invariants", "CEpoll"]),
        .target(name: "PersistentMemory", dependencies: ["Invariants", "CPersistentMemory", "CSupport"]),
        .target(name: "Storage", dependencies: ["Invariants", "PersistentMemory", "Consensus"]),
        .target(name: "StateMachines", dependencies: ["Invariants", "PersistentMemory"]),
        .target(name: "Topology", dependencies: ["Keys", .product(name: "TOMLKit", package: "TOMLKit")]),
        .target(name: "Simulation", dependencies: ["Invariants", "CSupport", "Consensus", "Flow"]),
        .target(name: "Client", dependencies: ["Invariants", "Wire", "Keys", "Messaging", "Topology"]),
        .target(
            name: "LoadGenerator",
            dependencies: [
                "Invariants", "Keys", "Messaging", "Wire", "ZMTP",
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ]),
        .target(
            name: "Replica",
            dependencies: [
                "Invariants", "Consensus", "Flow", "Wire", "Queues", "Keys", "Messaging", "ZMTP", "PersistentMemory",
                "Storage", "StateMachines", "Topology", "CSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        .target(
            name: "MPaxosSM",
            dependencies: [
                "Replica", "StateMachines", "Client", "Keys", "Topology",
                .product(name: "Logging", package: "swift-log"),
            ]),
        .executableTarget(
            name: "mpaxos",
            dependencies: [
                "Invariants", "Replica", "Client", "LoadGenerator", "Simulation", "Topology", "Storage",
                "StateMachines", "PersistentMemory", "Keys", "Wire",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ]),

        .testTarget(name: "ArchitectureTests"),
        .testTarget(name: "InvariantsTests", dependencies: ["Invariants", "CSupport"]),
        .testTarget(name: "ConsensusTests", dependencies: ["Consensus", "Simulation"]),
        .testTarget(name: "FlowTests", dependencies: ["Flow"]),
        .testTarget(name: "WireTests", dependencies: ["Wire", "Consensus"]),
        .testTarget(name: "QueuesTests", dependencies: ["Queues"]),
        .testTarget(name: "KeysTests", dependencies: ["Keys"]),
        .testTarget(name: "MessagingTests", dependencies: ["Keys", "Messaging"]),
        .testTarget(name: "ZMTPTests", dependencies: ["ZMTP", "Messaging"]),
        .testTarget(name: "PersistentMemoryTests", dependencies: ["PersistentMemory"]),
        .testTarget(name: "StorageTests", dependencies: ["Storage", "StateMachines", "PersistentMemory", "Consensus"]),
        .testTarget(name: "StateMachinesTests", dependencies: ["StateMachines", "PersistentMemory"]),
        .testTarget(name: "TopologyTests", dependencies: ["Keys", "Topology"]),
        .testTarget(name: "ClientTests", dependencies: ["Client", "Keys", "Wire", "Messaging", "Topology"]),
        .testTarget(name: "LoadGeneratorTests", dependencies: ["LoadGenerator", "Keys", "Wire", "Messaging", "ZMTP"]),
        .testTarget(
            name: "ReplicaTests",
            dependencies: [
                "Invariants", "Replica", "Client", "StateMachines", "Topology", "Storage", "PersistentMemory",
                "Consensus", "Wire", "Keys", "Messaging", "Queues", "CSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        .testTarget(name: "EndToEndTests", exclude: ["scenarios"]),
    ],
    swiftLanguageModes: [.v6]
)
