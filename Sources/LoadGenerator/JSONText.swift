/// One JSON object, written field by field.
struct JSONText {
    private var fields: [String] = []

    mutating func add(_ name: String, _ value: Double?) { fields.append("\"\(name)\":\(Self.text(value))") }
    mutating func add(_ name: String, _ value: Int) { fields.append("\"\(name)\":\(value)") }
    mutating func add(_ name: String, _ objects: [JSONText]) {
        fields.append("\"\(name)\":[" + objects.map(\.text).joined(separator: ",") + "]")
    }

    var text: String { "{" + fields.joined(separator: ",") + "}" }

    /// With three decimals at most; JSON knows no infinities.
    private static func text(_ value: Double?) -> String {
        guard let value, value.isFinite else { return "null" }
        let rounded = (value * 1000).rounded() / 1000
        return rounded == rounded.rounded() && abs(rounded) < 1e15 ? "\(Int64(rounded))" : "\(rounded)"
    }
}
