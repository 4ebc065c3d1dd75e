// swift-tools-version: 6.2
import PackageDescription

// A package of its own, with links to the modules it measures: their interfaces are visible within one package only.
let package = Package(
    name: "execute",
    targets: [
        .systemLibrary(name: "CPersistentMemory"),
        .target(name: "CSupport"),
        .target(name: "Consensus"),
        .target(name: "Wire", dependencies: ["Consensus"]),
        .target(name: "PersistentMemory", dependencies: ["CPersistentMemory", "CSupport"]),
        .target(name: "Storage", dependencies: ["PersistentMemory", "Consensus"]),
        .target(name: "StateMachines", dependencies: ["PersistentMemory"]),
        .target(name: "Floor", dependencies: ["CPersistentMemory"]),
        .executableTarget(
            name: "execute",
            dependencies: ["Wire", "PersistentMemory", "Storage", "StateMachines", "Consensus", "Floor"]),
    ],
    swiftLanguageModes: [.v6]
)
