/// What the next request is. Reproducible from its seed.
struct Workload {
    private var state: UInt64
    private let keys: UInt64
    private let zipf: Zipf?
    private let smallest: Int
    private let sizes: UInt64
    private let reads: Operation
    /// A draw below the first threshold is a read, below the next a delete, below the last a create.
    private let readLimit: UInt64
    private let deleteLimit: UInt64
    private let createLimit: UInt64

    init(_ configuration: BenchConfiguration) {
        // Any seed but zero will do for xorshift; neighbouring seeds shall not give neighbouring streams.
        state = (configuration.seed &+ 1) &* 0x9E37_79B9_7F4A_7C15 | 1
        keys = configuration.keys
        switch configuration.keyDistribution {
        case .uniform: zipf = nil
        case .zipf(let exponent): zipf = Zipf(count: configuration.keys, exponent: exponent)
        }
        smallest = configuration.valueSizes.lowerBound
        sizes = UInt64(configuration.valueSizes.count)
        switch configuration.reads {
        case .query: reads = .query
        case .local: reads = .localQuery
        case .ordered: reads = .orderedGet
        }
        let deletes = configuration.readShare + configuration.deleteShare
        readLimit = Workload.limit(configuration.readShare)
        deleteLimit = Workload.limit(deletes)
        createLimit = Workload.limit(deletes + configuration.createShare)
    }

    @inline(__always) mutating func nextOperation() -> Operation {
        if createLimit == 0 { return .put }
        // 63 bits, so that a limit can lie above them all.
        let drawn = draw() >> 1
        if drawn < readLimit { return reads }
        if drawn < deleteLimit { return .delete }
        return drawn < createLimit ? .create : .put
    }

    @inline(__always) mutating func nextKey() -> UInt64 {
        if let zipf { return zipf.rank { Double(draw() >> 11) * 0x1p-53 } }
        // The high half of the product is uniform below `keys`.
        return draw().multipliedFullWidth(by: keys).high
    }

    @inline(__always) mutating func nextValueSize() -> Int {
        sizes == 1 ? smallest : smallest + Int(draw().multipliedFullWidth(by: sizes).high)
    }

    private static func limit(_ share: Double) -> UInt64 { UInt64(min(share, 1) * 0x1p63) }

    private mutating func draw() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state &* 0x2545_F491_4F6C_DD1D
    }
}
