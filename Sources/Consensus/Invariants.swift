/// What holds between steps. Reads the whole log: for tests and the simulator.
extension Core {
    /// Traps when the core contradicts itself; meant to be called after every step.
    package func checkInvariants() {
        precondition(log.floor >= 1 && log.floor <= decided + 1, "only decided entries are trimmed")
        precondition(served >= log.floor, "what was trimmed is not served")
        precondition(decided <= learned && learned <= known, "decided <= learned <= known")
        precondition(commit <= known, "the commit index is known")
        precondition(durableRecord <= lastRecord && promisedRecord <= lastRecord, "durable is what was emitted")
        precondition(established.view <= promised, "an established view was promised")
        precondition(log.highest < log.end, "entries are within the log")
        checkLog()
        checkAccepted()
        if role == .leader { checkLeader() }
    }

    private func checkLog() {
        var instance = log.floor
        while instance <= log.highest {
            let entry = log[instance]
            precondition(entry.view <= promised || entry.view == decidedView, "an acceptance implies a promise")
            precondition(entry.record <= lastRecord, "an entry's record was emitted")
            if instance <= decided && instance >= served {
                precondition(entry.isDecided && entry.record <= durableRecord, "decided entries are there, durably")
            }
            if entry.view == decidedView { precondition(entry.isDecided, "learnt as decided is decided") }
            if entry.view == promised && instance <= commit && entry.view != 0 && instance > decided {
                precondition(entry.isDecided, "the commit index decides the entries of its view")
            }
            instance += 1
        }
        precondition(!log[learned + 1].isDecided, "what is contiguous is learnt")
    }

    private func checkAccepted() {
        guard baseKnown else {
            precondition(accepted == 0 && commit == 0, "nothing is acknowledged before the base is known")
            return
        }
        precondition(acceptedDurable <= accepted && acceptedDurable >= base, "base <= durably accepted <= accepted")
        precondition(commit >= base, "what is before the view is decided")
        var instance = max(base, decided) + 1
        while instance <= accepted {
            let entry = log[instance]
            if !configuration.plantedBugs.contains(.votesOverViews) {
                precondition(
                    entry.view == promised || entry.isDecided, "acknowledged is what is accepted in this view")
            }
            precondition(entry.record <= acceptedRecord, "an acknowledgement rests on its records")
            instance += 1
        }
    }

    private func checkLeader() {
        precondition(leadingReplica(of: promised, among: memberCount) == me, "a view has one leader")
        precondition(established.view == promised && established.base == base, "a leader's view is established")
        precondition(nextInstance > log.highest && nextInstance > base, "a leader proposes new instances")
        precondition(accepted + 1 == nextInstance, "a leader accepts what it proposes")
        var instance = max(base, decided) + 1
        while instance < nextInstance {
            let entry = log[instance]
            precondition(entry.view == promised || entry.isDecided, "a leader accepted all it may propose")
            instance += 1
        }
        for peer in 0..<memberCount where peer != me {
            precondition(peers[peer].acked >= base && peers[peer].acked < nextInstance, "acknowledged was proposed")
            precondition(peers[peer].next <= nextInstance, "sent was proposed")
        }
    }
}
