import MPaxosPersistentMemory
import MPaxosStateMachines

/// The service that simulated replicas run: the key-value service, as it is.
typealias SimulatedMachine = KeyValueService
