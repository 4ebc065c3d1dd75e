/// A member of this type, which takes no room, has the compiler use what contains it only where it lies. Without it,
/// whoever reads a large structure through a method or a computed property copies all of it first.
@_rawLayout(size: 0, alignment: 1)
struct InPlace: ~Copyable, @unchecked Sendable {}
