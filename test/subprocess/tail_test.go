package subprocess

import (
	"fmt"
	"testing"

	"sluice/test/verify"
)

func TestTailKeepsTheEnd(t *testing.T) {
	tail := NewTail(5)
	for _, text := range []string{"", "ab", "cde", "fghijklm", "n\n"} {
		n, err := fmt.Fprint(tail, text)
		verify.That(t, n == len(text) && err == nil, "wrote %d of %q, %v", n, text, err)
	}
	got := tail.String()
	verify.That(t, got == "klmn", "kept %q, want the last five bytes but the line's end", got)
}
