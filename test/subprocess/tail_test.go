package subprocess

import (
	"fmt"
	"testing"
)

func TestTailKeepsTheEnd(t *testing.T) {
	tail := NewTail(5)
	for _, text := range []string{"", "ab", "cde", "fghijklm", "n\n"} {
		if n, err := fmt.Fprint(tail, text); n != len(text) || err != nil {
			t.Errorf("wrote %d of %q, %v", n, text, err)
		}
	}
	if got := tail.String(); got != "klmn" {
		t.Errorf("kept %q, want the last five bytes but the line's end", got)
	}
}
