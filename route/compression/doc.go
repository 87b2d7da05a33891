// Package compression compresses the content of responses: which encoding a client accepts
// (RFC 9110, section 12.5.3), which media types are worth it, and encoders that are reused
// and have bounded memory.
package compression
