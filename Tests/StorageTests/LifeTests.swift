import MPaxosConsensus
import MPaxosPersistentMemory
import Testing

@testable import MPaxosStorage

/// The record of a replica's own lives, and of those in which its peers were met.
@Suite struct LifeTests {
    private func newPool() throws -> AcceptorPool {
        let pool = try emptyPool(pages: 6)
        AcceptorPool.write(identity: identity, geometry: AcceptorGeometry(slots: 16, arenaSize: 4096), to: pool)
        return try open(pool)
    }

    private func open(_ pool: Pool) throws -> AcceptorPool {
        try AcceptorPool(in: pool, expecting: identity.cluster, replica: identity.replica)
    }

    @Test func whichLivesAdmitWhich() {
        let life = Life(bootCount: 4, nonce: 1)
        #expect(life.admits(life, after: []) && life.admits(Life(bootCount: 5, nonce: 2), after: [1, 7]))
        #expect(Life.none.admits(life, after: [9, 9, 9, 9, 9]))
        for other in [Life(bootCount: 3, nonce: 1), Life(bootCount: 4, nonce: 2)] {
            #expect(!life.admits(other, after: [1, 1, 1, 1]))
        }
        // Started again and again on old pools.
        #expect(!life.admits(Life(bootCount: 5, nonce: 2), after: [8, 1]))
        #expect(!life.admits(Life(bootCount: 6, nonce: 2), after: [1, 8]))
        #expect(life.admits(Life(bootCount: 6, nonce: 2), after: [8, 1]))
        #expect(life.admits(Life(bootCount: 7, nonce: 2), after: [8, 8]), "too long ago to be named")
        #expect(life.admits(Life(bootCount: .max, nonce: 2), after: [8, 8]))
        #expect(life.joined(with: Life(bootCount: 3, nonce: 9)) == life && life.joined(with: life) == life)
        #expect(Life.none.joined(with: life) == life)
        let disputed = life.joined(with: Life(bootCount: 4, nonce: 2))
        for nonce in [1, 2] as [UInt64] { #expect(!disputed.admits(Life(bootCount: 4, nonce: nonce), after: [])) }
        #expect(disputed.joined(with: life) == disputed)
    }

    @Test func theLastLivesAreKnown() throws {
        var pool = try newPool()
        #expect(pool.ancestors.isEmpty)
        for count in 1...80 as ClosedRange<UInt64> {
            pool.begin(start: count)
            pool.record(life: Life(bootCount: count, nonce: 1000 + count))
            pool = try open(copy(of: pool.pool))
            let known = min(count - 1, UInt64(Life.mostAncestors))
            #expect(pool.ancestors == (0..<known).map { 1000 + count - 1 - $0 })
        }
        #expect(!pool.isExpelled)
        pool.expel()
        pool = try open(copy(of: pool.pool))
        #expect(pool.isExpelled && pool.life.bootCount == 80)
    }

    /// A crash after any step of a start leaves pools that belong together; a state of any other start does not.
    @Test func aStartCountsInThreeSteps() throws {
        var pool = try newPool()
        #expect(pool.life == .none && pool.belongs(toStateStarted: 0) && !pool.belongs(toStateStarted: 1))
        for count in 1...3 as ClosedRange<UInt64> {
            // Begun twice: the first time it was cut short.
            for _ in 0..<2 {
                pool.begin(start: count)
                pool = try open(copy(of: pool.pool))
                #expect(pool.life.bootCount == count - 1)
                for other in 0...5 as ClosedRange<UInt64> {
                    #expect(pool.belongs(toStateStarted: other) == (other == count || other + 1 == count))
                }
            }
            let life = Life(bootCount: count, nonce: 100 + count)
            pool.record(life: life)
            pool = try open(copy(of: pool.pool))
            #expect(pool.life == life)
            for other in 0...5 as ClosedRange<UInt64> {
                #expect(pool.belongs(toStateStarted: other) == (other == count))
            }
        }
    }

    @Test func livesOfPeersAreKeptBesideTheirIncarnations() throws {
        let pool = try newPool()
        for peer in 0..<9 as Range<UInt16> {
            #expect(pool.life(of: peer) == .none)
            pool.record(incarnation: 50 + UInt64(peer), of: peer)
            #expect(pool.life(of: peer) == .none)
            pool.record(life: Life(bootCount: 1, nonce: 1 + UInt64(peer)), of: peer)
        }
        pool.record(life: Life(bootCount: 7, nonce: 77), of: 4)
        pool.fence()
        let found = try open(copy(of: pool.pool))
        for peer in 0..<9 as Range<UInt16> {
            #expect(found.incarnation(of: peer) == 50 + UInt64(peer))
            #expect(
                found.life(of: peer)
                    == (peer == 4 ? Life(bootCount: 7, nonce: 77) : Life(bootCount: 1, nonce: 1 + UInt64(peer))))
        }
    }
}
