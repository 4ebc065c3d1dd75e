import Topology

/// Asks replicas for their STATUS.
struct StatusQuery {
    /// Why there is no answer.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }
    let endpoints: [String]
    let timeout: Double
    func ask() -> [Result<String, Problem>] { endpoints.map { _ in .failure(Problem(description: "not there")) } }
}
