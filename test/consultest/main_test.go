package consultest

import (
	"os"
	"testing"

	"sluice/test/parallel"
)

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
