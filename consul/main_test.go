package consul

import (
	"os"
	"testing"

	"sluice/test/consultest"
	"sluice/test/parallel"
)

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}
