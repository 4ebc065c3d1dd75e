// swift-tools-version: 6.2
import PackageDescription

func ours(_ names: [String]) -> [Target.Dependency] { names.map { .byName(name: "MPaxos" + $0) } }

/// A module of the main package, under the name that it has there.
func module(
    _ name: String, _ modules: [String] = [], _ products: [Target.Dependency] = [], settings: [SwiftSetting] = []
) -> Target {
    .target(
        name: "MPaxos" + name, dependencies: ours(modules) + products, path: "Modules/" + name, swiftSettings: settings)
}

func systemLibrary(_ name: String) -> Target { .systemLibrary(name: "MPaxos" + name, path: "Modules/" + name) }

let inPlace: [SwiftSetting] = [.enableExperimentalFeature("RawLayout")]
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

// A package of its own, with a link to the modules it measures: their interfaces are visible within one package only.
let package = Package(
    name: "execute",
    dependencies: [.package(url: "https://github.com/apple/swift-log", from: "1.16.2")],
    targets: [
        systemLibrary("CZeroMQ"),
        systemLibrary("CPersistentMemory"),
        module("CSupport"),
        module("Invariants", ["CSupport"]),
        module("Consensus", ["Invariants"], settings: inPlace),
        module("Flow", ["Invariants"], settings: inPlace),
        module("Wire", ["Invariants", "Consensus"]),
        module("Queues", ["Invariants", "CSupport"]),
        module("Frames", ["Invariants", "CZeroMQ"]),
        module("PersistentMemory", ["Invariants", "CPersistentMemory", "CSupport"]),
        module("Storage", ["Invariants", "PersistentMemory", "Consensus"]),
        module("KeyValueFormat", ["Invariants"]),
        module("StateMachines", ["Invariants", "PersistentMemory", "KeyValueFormat"]),
        module("Metrics", ["Invariants", "CSupport"]),
        module(
            "StateTransfer", ["Invariants", "Consensus", "Wire", "PersistentMemory", "Storage", "Metrics"], [logging]),
        module(
            "Pipeline",
            [
                "Invariants", "Consensus", "Flow", "Wire", "Queues", "Frames", "PersistentMemory", "Storage",
                "StateMachines", "StateTransfer", "Metrics",
            ], [logging]),
        .target(name: "Floor", dependencies: ours(["CPersistentMemory"])),
        .executableTarget(
            name: "execute",
            dependencies: ours([
                "CSupport", "Wire", "Queues", "PersistentMemory", "Storage", "StateMachines", "Consensus", "Metrics",
                "StateTransfer", "Pipeline",
            ]) + ["Floor", logging]),
    ],
    swiftLanguageModes: [.v6]
)
