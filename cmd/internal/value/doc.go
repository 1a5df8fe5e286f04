// Package value has the types of cawrm's command line: sizes, addresses, mirrors.
//
// Each one parses itself (Set), prints what Set takes (String), and satisfies pflag.Value. An error says
// what was wrong and shows a text that would be right. Nothing here does I/O.
package value
