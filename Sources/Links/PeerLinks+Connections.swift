import MPaxosInvariants

/// The connections to members of lower index, as they come and go; and the end of those whose keys were withdrawn.
extension PeerLinks {
    private static let failuresOfOneThatStarts = 10

    func readEvents(of link: Link, now: UInt64) -> Int {
        var count = 0
        while let event = sockets.nextEvent(of: link.index) {
            count += 1
            link.reconnection.heard(now: now)
            switch event {
            case .attempted: break
            case .connected:
                link.isOpen = false
                link.reconnection.connected()
                // Whoever listened there before may have heard the old one.
                link.ticket = max(1, random())
                link.proof = 0
                link.helloAt = now
            case .lost:
                if link.isOpen { logger.info("lost the link to replica \(settings.members[link.index].id)") }
                link.isOpen = false
                link.helloAt = nil
            case .handshakeFailed: handshakeFailed(of: link)
            case .mechanismsDiffer:
                link.reconnection.wasRefused(now: now)
                complain(aboutMechanismOf: link)
            case .keyRefused:
                link.reconnection.wasRefused(now: now)
                let member = settings.members[link.index]
                refuse(
                    "replica \(member.id) at \(member.peerEndpoint) does not know the key of replica \(settings.replica): name it as public_key in the topology of that host, and send SIGHUP to the replica there",
                    link)
            }
        }
        return count
    }

    /// The sockets try again by themselves. A CURVE server says nothing to who expects another key of it than it has.
    private func handshakeFailed(of link: Link) {
        let member = settings.members[link.index]
        guard sockets.hasKeys else {
            return complain("whoever listens at \(member.peerEndpoint) does not speak ZeroMQ", about: link)
        }
        link.reconnection.failed(hasOtherKeys: sockets.hasOtherKeys(link.index), now: now)
        // One that starts or ends breaks off as well.
        guard link.reconnection.failures > Self.failuresOfOneThatStarts else { return }
        refuse(
            "whoever listens at \(member.peerEndpoint) breaks off the handshake: it has another key than the topology has for replica \(member.id), or none, or does not speak ZeroMQ; compare `mpaxos keys show` there with public_key here",
            link)
    }

    private func complain(aboutMechanismOf link: Link) {
        let member = settings.members[link.index]
        refuse(
            sockets.hasKeys
                ? "replica \(member.id) at \(member.peerEndpoint) runs without a key, and the topology of replica \(settings.replica) has one for it: use the same topology file on every host"
                : "replica \(member.id) at \(member.peerEndpoint) has a key, and the topology of replica \(settings.replica) has none: use the same topology file on every host",
            link)
    }

    func connectAnew(_ link: Link) {
        link.reconnection.begins(now: now)
        sockets.connectAnew(to: link.index)
    }

    /// Ends the links that stand by keys which the members have no more, and connects anew where they have others.
    func dropWithdrawn() {
        for case let link? in links {
            let id = settings.members[link.index].id
            if link.connects {
                let isWithdrawn = sockets.isKeyWithdrawn(of: link.index)
                guard isWithdrawn || link.helloAt == nil else { continue }
                if isWithdrawn { logger.notice("the key of replica \(id) was withdrawn: connects anew") }
                link.isOpen = false
                link.helloAt = nil
                connectAnew(link)
            } else if let source = link.source, source.key != nil, sockets.holder(ofKey: source.key) != link.index {
                logger.notice("the key of replica \(id) was withdrawn: ends the link to it")
                link.isOpen = false
                link.route = .none
                sockets.end(source)
                link.source = nil
            }
        }
    }
}
