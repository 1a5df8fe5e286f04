// Package nbd is a client of plain NBD servers, as much of one as a copy needs: fixed newstyle with GO (EXPORT_NAME for servers
// that lack it), writes, zeroes, trims and flushes, many requests on their way at once. What is read is for comparing.
//
// Lengths that a server gives are bounded before anything is allocated. A Client belongs to one goroutine, but for Close; its
// goroutine runReplies ends with the connection.
//
// Absences: TLS, structured replies, more than one connection.
package nbd
