// swift-tools-version: 6.2
import PackageDescription

/// A module of the main package, under the name that it has there.
func module(_ name: String, _ modules: [String] = []) -> Target {
    .target(name: "MPaxos" + name, dependencies: modules.map { .byName(name: "MPaxos" + $0) }, path: "Modules/" + name)
}

// A package of its own, with a link to the modules it measures: their interfaces are visible within one package only.
let package = Package(
    name: "commit",
    targets: [
        .systemLibrary(name: "MPaxosCPersistentMemory", path: "Modules/CPersistentMemory"),
        module("CSupport"),
        module("Invariants", ["CSupport"]),
        module("PersistentMemory", ["Invariants", "CPersistentMemory", "CSupport"]),
        .target(name: "Baselines", dependencies: ["MPaxosCPersistentMemory"]),
        .executableTarget(name: "commit", dependencies: ["MPaxosPersistentMemory", "Baselines"]),
    ],
    swiftLanguageModes: [.v6]
)
