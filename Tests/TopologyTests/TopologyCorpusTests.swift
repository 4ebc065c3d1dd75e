import Foundation
import Testing

@testable import MPaxosTopology

/// Files by chance, made of those in `topologies/` and of one with every key, see `Corpus` and `Fuzz`.
@Suite struct TopologyCorpusTests {
    @Test func files() throws {
        let fuzz = try Fuzz(Corpus("topology"), rounds: 4_000, TopologyProperties.check)
        #expect(fuzz.accepted > 100 && fuzz.refused > 1_000)
    }

    @Test func theShippedTopologiesAreKept() throws {
        var seeds = ["smallest": Array(TopologyTests.smallest.utf8)]
        for name in ["one-local", "three-local", "five-local", "three-hosts"] {
            seeds[name] = try TopologyFile.read("\(ShippedTopologiesTests.folder)/\(name).toml")
        }
        seeds["settings"] = Array(
            (TopologyTests.smallest + """

                [storage]
                directory = "/dev/shm/x"
                log_size = "64 MiB"
                [protocol]
                window = 64
                heartbeat_ms = 20
                [client]
                socket = "router"
                sessions = 1_000
                [pipeline]
                threads = "staged"
                [limits]
                client_input = "32 MiB"
                silence_s = 5
                """).utf8)
        seeds["keys"] = Array(
            (TopologyTests.smallest + """

                public_key = ["rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"]
                [client]
                security = "curve"
                [security]
                keys = "secrets"
                client_keys = "/etc/clients.toml"
                [http]
                certificate = "cert.pem"
                private_key = "/etc/key.pem"
                token = "http.token"
                """).utf8)
        #expect(try Corpus.differences("topology", from: seeds) == [])
    }
}
