import MPaxosConsensus

/// Members that have a key, their own, and say that they are others.
///
/// What they say may have no effect. So they have their own source of chance, and speak between events: a run without
/// them is the same run.
struct Liars {
    var random: SimulationRandom
    /// Mean time between two lies.
    let interval: Microseconds
    var nextAt: Microseconds

    init(seed: UInt64) {
        random = SimulationRandom(seed: ~seed)
        interval = 1_000 + random.below(60_000)
        nextAt = random.below(2 * interval)
    }

    /// What would harm, said in the name of `name` to `listener`, by one that has met them, or has not.
    mutating func lie(
        inNameOf name: ReplicaIndex, to listener: ReplicaIndex, knowing acquaintances: Acquaintances
    ) -> Acquaintances.Introduction {
        var lie = acquaintances.introduction
        let known = lie.records[name]
        let isOfOtherPools = known.incarnation == 0 || random.chance(perMille: 200)
        lie.incarnation = isOfOtherPools ? random.next() | 1 : known.incarnation
        lie.life = known.life
        lie.ancestors = []
        if !known.life.isSound || random.chance(perMille: 800) {
            lie.life = laterLife(than: known.life)
            // Of the right line, as far as anybody can tell.
            if random.chance(perMille: 500) {
                lie.ancestors = (known.life.bootCount + 1..<lie.life.bootCount).map { _ in random.next() | 1 }
                lie.ancestors.append(known.life.nonce)
            }
        }
        lie.founding = [.gathering, .whole, .founded][random.index(3)]
        lie.records[name] = Acquaintances.Record(incarnation: lie.incarnation, life: lie.life)
        for member in lie.records.indices where member != name {
            let isListener = member == listener
            if random.chance(perMille: isListener ? 500 : 200) {
                lie.records[member].life = laterLife(than: lie.records[member].life)
            }
            if random.chance(perMille: isListener ? 200 : 50) { lie.records[member].incarnation = random.next() | 1 }
        }
        return lie
    }

    private mutating func laterLife(than life: Life) -> Life {
        Life(bootCount: life.bootCount + 1 + random.below(4), nonce: random.next() | 1)
    }
}

extension Simulator {
    /// A member says to another that it is a third one, over a connection that was made with its own key. Its process
    /// need not run for that.
    func lie() throws(SimulationFailure) {
        liars.nextAt = now + 1 + liars.random.below(2 * liars.interval)
        let order = indices.shuffled(using: &liars.random)
        let (liar, listener, name) = (order[0], order[1], order[2])
        guard replicas[listener].isRunning && replicas[listener].pausedUntil <= now,
            network.isOpen(from: liar, to: listener) && network.isOpen(from: listener, to: liar)
        else { return }
        let lie = liars.lie(inNameOf: name, to: listener, knowing: replicas[liar].acquaintances)
        trace("\(liar) says to \(listener) that it is \(name): \(lie)")
        report.lies += 1
        if !replicas[listener].acquaintances.isFounded { report.earlyLies += 1 }
        let objection = replicas[listener].acquaintances.objection(to: lie, from: name, keyOf: proof(of: liar))
        if case .foreignKey = objection { return }
        guard objection == nil else {
            try part(listener, objection, of: name)
            guard !replicas[listener].storage.members.isExpelled else {
                throw failure("replica \(listener) ends for the word of \(liar), which says that it is \(name)")
            }
            return
        }
        try take(up: lie, of: name, at: listener, keyOf: proof(of: liar))
        throw failure("replica \(listener) takes up with \(liar), which says that it is \(name)")
    }
}
