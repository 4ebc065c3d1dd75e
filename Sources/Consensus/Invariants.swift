/// What holds between steps. It reads the whole log, and so is for tests and the simulator.
extension Core {
    /// The rule that does not hold, or nil. It is meant to be called after every step.
    package func violatedInvariant() -> StaticString? {
        guard log.floor >= 1 && log.floor <= decided + 1 else { return "only decided entries are trimmed" }
        guard served >= log.floor else { return "what was trimmed is not served" }
        guard served <= decided + 1 else { return "what is served is decided" }
        guard decided <= learned && learned <= known else { return "decided <= learned <= known" }
        guard commit <= known else { return "the commit index is known" }
        guard durableRecord <= lastRecord && promisedRecord <= lastRecord else { return "durable is what was emitted" }
        guard established.view <= promised else { return "an established view was promised" }
        guard log.highest < log.end else { return "entries are within the log" }
        if let violation = violationInLog() ?? violationInAccepted() { return violation }
        return role == .leader ? violationInLeader() : nil
    }

    private func violationInLog() -> StaticString? {
        var instance = log.floor
        while instance <= log.highest {
            let entry = log[instance]
            guard entry.view <= promised || entry.view == decidedView else { return "an acceptance implies a promise" }
            guard entry.record <= lastRecord else { return "an entry's record was emitted" }
            if instance <= decided && instance >= served {
                guard entry.isDecided && entry.record <= durableRecord else {
                    return "decided entries are there, durably"
                }
            }
            if entry.view == decidedView { guard entry.isDecided else { return "learnt as decided is decided" } }
            if entry.view == promised && instance <= commit && entry.view != 0 && instance > decided {
                guard entry.isDecided else { return "the commit index decides the entries of its view" }
            }
            instance += 1
        }
        guard !log[learned + 1].isDecided else { return "what is contiguous is learnt" }
        return nil
    }

    private func violationInAccepted() -> StaticString? {
        guard baseKnown else {
            guard accepted == 0 && commit == 0 else { return "nothing is acknowledged before the base is known" }
            return nil
        }
        guard acceptedDurable <= accepted && acceptedDurable >= base else {
            return "base <= durably accepted <= accepted"
        }
        guard commit >= base else { return "what is before the view is decided" }
        guard decided <= acceptedDurable && learned <= accepted else { return "what is decided is acknowledged" }
        var instance = max(base, decided) + 1
        while instance <= accepted && !configuration.plantedBugs.contains(.votesOverViews) {
            let entry = log[instance]
            guard entry.view == promised || entry.isDecided else {
                return "acknowledged is what is accepted in this view"
            }
            guard entry.record <= acceptedRecord else { return "an acknowledgement rests on its records" }
            instance += 1
        }
        return nil
    }

    private func violationInLeader() -> StaticString? {
        guard leadingReplica(of: promised, among: memberCount) == me else { return "a view has one leader" }
        guard established.view == promised && established.base == base else { return "a leader's view is established" }
        guard nextInstance > log.highest && nextInstance > base else { return "a leader proposes new instances" }
        guard accepted + 1 == nextInstance else { return "a leader accepts what it proposes" }
        var instance = max(base, decided) + 1
        while instance < nextInstance {
            let entry = log[instance]
            guard entry.view == promised || entry.isDecided else { return "a leader accepted all it may propose" }
            instance += 1
        }
        for peer in 0..<memberCount where peer != me {
            guard peers[peer].acked >= base && peers[peer].acked < nextInstance else {
                return "acknowledged was proposed"
            }
            guard peers[peer].next <= nextInstance else { return "sent was proposed" }
            guard peers[peer].next > peers[peer].acked else { return "what is acknowledged is not sent again" }
        }
        return nil
    }
}
