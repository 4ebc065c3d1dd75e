import Glibc
import MPaxosInvariants

/// Draws ranks from 0 that follow Zipf's law: rank k with a weight of 1 / (k + 1)^exponent.
///
/// Rejection-inversion (Hörmann and Derflinger, 1996): no table, the same cost for any number of ranks.
struct Zipf {
    private let count: Double
    private let exponent: Double
    private let integralOfFirst: Double
    private let integralOfLast: Double
    private let acceptance: Double

    init(count: UInt64, exponent: Double) {
        invariant(count > 0 && exponent > 0, "a Zipf distribution has ranks and a positive exponent")
        self.count = Double(count)
        self.exponent = exponent
        integralOfFirst = Zipf.integral(1.5, exponent) - 1
        integralOfLast = Zipf.integral(self.count + 0.5, exponent)
        acceptance = 2 - Zipf.inverse(Zipf.integral(2.5, exponent) - Zipf.weight(2, exponent), exponent)
    }

    /// - Parameter uniform: the next number of a uniform stream over [0, 1).
    func rank(_ uniform: () -> Double) -> UInt64 {
        while true {
            let area = integralOfLast + uniform() * (integralOfFirst - integralOfLast)
            let point = Zipf.inverse(area, exponent)
            let rank = min(max(point.rounded(), 1), count)
            if rank - point <= acceptance
                || area >= Zipf.integral(rank + 0.5, exponent) - Zipf.weight(rank, exponent)
            {
                return UInt64(rank) - 1
            }
        }
    }

    private static func weight(_ x: Double, _ exponent: Double) -> Double { exp(-exponent * log(x)) }

    /// Integral of the weight, up to a constant.
    private static func integral(_ x: Double, _ exponent: Double) -> Double {
        let logarithm = log(x)
        return expm1OverX((1 - exponent) * logarithm) * logarithm
    }

    private static func inverse(_ area: Double, _ exponent: Double) -> Double {
        // Rounding may lead below the pole.
        let scaled = max(-1, area * (1 - exponent))
        return exp(log1pOverX(scaled) * area)
    }

    private static func log1pOverX(_ x: Double) -> Double {
        abs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x / 3)
    }

    private static func expm1OverX(_ x: Double) -> Double {
        abs(x) > 1e-8 ? expm1(x) / x : 1 + x * 0.5 * (1 + x / 3)
    }
}
