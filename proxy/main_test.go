package proxy

import (
	"os"
	"testing"

	"sluice/test/parallel"
)

// Most tests wait for a time limit to end.
func TestMain(m *testing.M) {
	parallel.SetDefault(16)
	os.Exit(m.Run())
}
