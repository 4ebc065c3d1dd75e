@_exported import Logging
// What a program with a state machine of its own imports: the node, the `StateMachine` protocol with the persistent
// collections, topology files, the client, keys, and the logger that a node is given.
@_exported import MPaxosClient
@_exported import MPaxosKeyValueFormat
@_exported import MPaxosKeys
@_exported import MPaxosReplica
@_exported import MPaxosStateMachines
@_exported import MPaxosTopology
