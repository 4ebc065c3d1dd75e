import ArgumentParser
import Glibc

/// A key or a value on the command line: the bytes of the argument, whatever they are.
struct ByteString: ExpressibleByArgument {
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    init(argument: String) { bytes = Arguments.bytes(of: argument) }

    /// For people.
    var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// The arguments of this process. The parser takes strings, which cannot be all that a shell passes on: bytes that are
/// no UTF-8 become scalars at the end of the last plane, which is for private use, and those that stood there already
/// are taken apart in the same way; so each argument has one string, and each string one argument.
enum Arguments {
    /// U+10FF00 and the byte.
    private static let escape: UInt32 = 0x10FF00

    /// Without the name of the program.
    static var all: [String] {
        (1..<max(1, Int(CommandLine.argc))).compactMap { index in
            CommandLine.unsafeArgv[index].map { pointer in
                string(of: Array(UnsafeRawBufferPointer(start: pointer, count: strlen(pointer))))
            }
        }
    }

    static func string(of bytes: [UInt8]) -> String {
        var text = String.UnicodeScalarView()
        var rest = bytes[...]
        while let first = rest.first {
            let length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4
            if let scalar = String(validating: rest.prefix(length), as: UTF8.self)?.unicodeScalars.first,
                scalar.value < escape || scalar.value > escape + 0xFF
            {
                text.append(scalar)
                rest = rest.dropFirst(length)
            } else {
                text.append(Unicode.Scalar(escape + UInt32(first))!)
                rest = rest.dropFirst()
            }
        }
        return String(text)
    }

    /// For what has to be text.
    static func text(of argument: String) throws -> String {
        let bytes = bytes(of: argument)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw Failure(
                .usage, "\(String(decoding: bytes, as: UTF8.self)): this name is not UTF-8; give the file another one")
        }
        return text
    }

    static func bytes(of text: String) -> [UInt8] {
        text.unicodeScalars.flatMap { scalar in
            (escape...escape + 0xFF).contains(scalar.value)
                ? [UInt8(scalar.value - escape)] : Array(String(scalar).utf8)
        }
    }
}
