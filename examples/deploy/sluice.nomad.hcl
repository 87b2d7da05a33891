# sluice on every client of Nomad, in the network of the machine: nomad job run sluice.nomad.hcl
job "sluice" {
  type = "system"

  update {
    max_parallel     = 1
    min_healthy_time = "10s"
  }

  group "sluice" {
    network {
      mode = "host"
      port "http" { static = 8080 }
      port "admin" { static = 8081 }
    }

    # Nomad asks /readyz, and Consul's DNS has the replicas that are ready.
    service {
      name = "sluice"
      port = "http"
      check {
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "sluice" {
      driver       = "docker"
      kill_timeout = "45s" # longer than shutdown.delay, idle and grace

      config {
        image        = "sluice:latest"
        network_mode = "host"
        args         = ["run", "--config", "/local/sluice.yaml"]
      }

      # sluice notices a change of the file itself.
      template {
        destination = "local/sluice.yaml"
        change_mode = "noop"
        data        = <<EOT
# The check comes from the agent of Consul on this machine.
admin: { address: "127.0.0.1:8081" }
consul: { addresses: ["http://127.0.0.1:8500"] }
shutdown: { delay: 3s, grace: 30s }
services:
  star: { consul: { service: star } }
routes:
  - { service: star }
EOT
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
