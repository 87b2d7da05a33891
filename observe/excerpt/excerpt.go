// Package excerpt shortens texts that others have written, such as a tag, the output of a check or
// an error of a peer, before they become a part of a log line, a reason or an answer.
package excerpt

import "strings"

const mark = "…"

// Of returns text, or a start of it that ends with "…" if it has more than most bytes. It has at
// most that many bytes then, is valid UTF-8, and shares no memory with text, so a long one is not
// kept. most is at least 3.
func Of(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(mark)], "") + mark
}
