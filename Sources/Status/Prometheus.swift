import MPaxosCSupport
import MPaxosMetrics

extension StatusReport {
    /// The text of /metrics, in Prometheus' format (version 0.0.4).
    package func prometheus() -> String {
        var text = PrometheusText()
        text.family("info", "What this replica is", .gauge)
        text.line(
            "info",
            [
                ("cluster", cluster), ("id", "\(id)"), ("version", version), ("durability", durability),
            ], "1")
        text.family("uptime_seconds", "Since the process began", .gauge)
        text.line("uptime_seconds", [], uptimeSeconds)
        text.family("process_cpu_seconds_total", "Processor time of the process", .counter)
        text.line("process_cpu_seconds_total", [], Self.thousandths(csupport_process_cpu_ns() / 1_000_000))
        text.family("role", "1 for the role that the replica is in", .gauge)
        let role = board.role
        for candidate in StatusBoard.Role.allCases {
            text.line("role", [("role", candidate.name)], candidate == role ? "1" : "0")
        }
        text.family("leader", "Id of the leader, -1 when none is known", .gauge)
        text.line("leader", [], board.knownLeader.map { "\(board.peers[$0].id)" } ?? "-1")
        text.family(
            "ready", "1 when the replica can be counted on: /healthz says why it is not", .gauge)
        text.line("ready", [], board.unreadiness(now: csupport_monotonic_us()) == nil ? "1" : "0")
        for metric in board.catalogue {
            if !metric.help.isEmpty { text.family(metric.name, metric.help, metric.kind) }
            text.line(metric.name, metric.labels, "\(metric.value.load())")
        }
        return text.text
    }
}

/// Writes Prometheus' text format.
private struct PrometheusText {
    private static let prefix = "mpaxos_"
    private(set) var text = ""

    mutating func family(_ name: String, _ help: String, _ kind: Metric.Kind) {
        text += "# HELP \(Self.prefix)\(name) \(help)\n# TYPE \(Self.prefix)\(name) \(kind.rawValue)\n"
    }

    mutating func line(_ name: String, _ labels: [(name: String, value: String)], _ value: String) {
        text += Self.prefix + name
        if !labels.isEmpty {
            text += "{" + labels.map { "\($0.name)=\"\(Self.escape($0.value))\"" }.joined(separator: ",") + "}"
        }
        text += " \(value)\n"
    }

    private static func escape(_ value: String) -> String {
        var escaped = ""
        for character in value {
            switch character {
            case "\\": escaped += "\\\\"
            case "\"": escaped += "\\\""
            case "\n": escaped += "\\n"
            default: escaped.append(character)
            }
        }
        return escaped
    }
}
