// swift-tools-version: 6.2
import PackageDescription

// A package of its own, with links to the modules it measures: their interfaces are visible within one package only.
let package = Package(
    name: "commit",
    targets: [
        .systemLibrary(name: "CPersistentMemory"),
        .target(name: "CSupport"),
        .target(name: "PersistentMemory", dependencies: ["CPersistentMemory", "CSupport"]),
        .target(name: "Baselines", dependencies: ["CPersistentMemory"]),
        .executableTarget(name: "commit", dependencies: ["PersistentMemory", "Baselines"]),
    ],
    swiftLanguageModes: [.v6]
)
