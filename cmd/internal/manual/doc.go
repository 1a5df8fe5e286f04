// Package manual prints the table of commands as manual pages and as the reference of the docs. Both are the text of the help,
// so there is nothing to write twice.
package manual
