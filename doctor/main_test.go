package doctor

import (
	"os"
	"testing"

	"sluice/test/parallel"
)

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(6)
	os.Exit(m.Run())
}
