// swift-tools-version: 6.2
import PackageDescription

// A package of its own, with links to the modules it measures: their interfaces are visible within one package only.
let package = Package(
    name: "execute",
    targets: [
        .systemLibrary(name: "CPersistentMemory"),
        .target(name: "CSupport"),
        .target(name: "Invariants", dependencies: ["CSupport"]),
        .target(
            name: "Consensus", dependencies: ["Invariants"],
            swiftSettings: [.enableExperimentalFeature("RawLayout")]),
        .target(name: "Wire", dependencies: ["Invariants", "Consensus"]),
        .target(name: "PersistentMemory", dependencies: ["Invariants", "CPersistentMemory", "CSupport"]),
        .target(name: "Storage", dependencies: ["Invariants", "PersistentMemory", "Consensus"]),
        .target(name: "StateMachines", dependencies: ["Invariants", "PersistentMemory"]),
        .target(name: "Floor", dependencies: ["CPersistentMemory"]),
        .executableTarget(
            name: "execute",
            dependencies: ["Wire", "PersistentMemory", "Storage", "StateMachines", "Consensus", "Floor"]),
    ],
    swiftLanguageModes: [.v6]
)
