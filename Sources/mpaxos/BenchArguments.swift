import ArgumentParser
import MPaxosLoadGenerator

/// Numbers with commas between: one, or those of a ramp.
struct Levels: ExpressibleByArgument {
    let values: [Double]
    /// As it was written.
    let defaultValueDescription: String

    init?(argument: String) {
        defaultValueDescription = argument
        let parts = argument.split(separator: ",", omittingEmptySubsequences: false).map { Double($0) }
        guard !parts.isEmpty, parts.allSatisfy({ $0 != nil }) else { return nil }
        values = parts.map { $0! }
    }
}

/// A number of bytes, or the least and the most: `128`, `16-1024`.
struct SizeRange: ExpressibleByArgument {
    let sizes: ClosedRange<Int>
    let defaultValueDescription: String

    init?(argument: String) {
        defaultValueDescription = argument
        let parts = argument.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard let least = parts.first ?? nil, parts.count <= 2, let most = parts.last ?? nil, least <= most else {
            return nil
        }
        sizes = least...most
    }
}

/// `uniform`, `zipf` (exponent 0.99, as YCSB has it), or `zipf:1.2`.
struct KeyDistributionArgument: ExpressibleByArgument {
    let distribution: BenchConfiguration.KeyDistribution
    let defaultValueDescription: String

    init?(argument: String) {
        defaultValueDescription = argument
        if argument == "uniform" {
            distribution = .uniform
        } else if argument == "zipf" {
            distribution = .zipf(exponent: 0.99)
        } else if argument.hasPrefix("zipf:"), let exponent = Double(argument.dropFirst(5)) {
            distribution = .zipf(exponent: exponent)
        } else {
            return nil
        }
    }
}
