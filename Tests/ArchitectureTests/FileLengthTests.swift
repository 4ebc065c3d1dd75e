import Testing

/// One job a file: past some 500 lines it has two.
@Suite struct FileLengthTests {
    static let most = 600

    @Test(arguments: ["Sources", "Tests", "scripts"])
    func staysReadable(folder: String) throws {
        let files = try SourceTree.files(under: folder, named: [".swift", ".h", ".c", ".py", ".sh", ""])
        #expect(!files.isEmpty)
        for file in files {
            let lines = try SourceTree.text(of: file).split(separator: "\n", omittingEmptySubsequences: false).count
            #expect(lines <= Self.most, "\(file) has \(lines) lines")
        }
    }
}
