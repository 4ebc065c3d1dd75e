extension StringProtocol {
    /// Whether it may be logged and shown as it is: without control characters, without what ends a line, and without
    /// what turns the direction of the text beside it. Topology files are held to the same.
    package var isPlainText: Bool {
        unicodeScalars.allSatisfy { scalar in
            switch scalar.properties.generalCategory {
            case .control, .lineSeparator, .paragraphSeparator: false
            case .format: !(0x202A...0x202E ~= scalar.value || 0x2066...0x2069 ~= scalar.value)
            default: true
            }
        }
    }
}
