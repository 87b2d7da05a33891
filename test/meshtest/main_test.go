package meshtest

import (
	"os"
	"testing"

	"sluice/test/consultest"
	"sluice/test/parallel"
)

// Tests with a real Consul mostly wait.
func TestMain(m *testing.M) {
	consultest.ClearEnvironment()
	parallel.SetDefault(8)
	os.Exit(m.Run())
}
