// What a program with a state machine of its own imports: the node, the `StateMachine` protocol with the persistent
// collections, topology files, the client, keys, and the logger that a node is given.
@_exported import Client
@_exported import Keys
@_exported import Logging
@_exported import Replica
@_exported import StateMachines
@_exported import Topology
