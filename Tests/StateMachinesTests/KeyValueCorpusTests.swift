import Testing

/// Bodies by chance, see `Corpus` and `Fuzz`.
@Suite struct KeyValueCorpusTests {
    @Test func bodies() throws {
        let properties = try KeyValueProperties()
        let fuzz = try Fuzz(Corpus("key-value"), rounds: 10_000, properties.check)
        #expect(fuzz.accepted > 1_000 && fuzz.refused > 1_000)
    }

    @Test func aBodyOfEachKindIsKept() throws {
        let seeds = [
            "put": Body.put("key", "value"), "get": Body.make("G", key: Array("key".utf8)),
            "delete": Body.delete("key"),
            "swap": Body.swap("key", expecting: "value", to: "other"),
            "swap-absent": Body.swap("key", expecting: nil, to: "other"), "append": Body.append("key", "more"),
            "add": Body.add("number", 1), "scan": Body.scan("k", limit: 3), "scan-all": Body.scan(""),
        ]
        #expect(try Corpus.differences("key-value", from: seeds) == [])
    }
}
