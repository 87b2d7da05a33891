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
admin: { address: "127.0.0.1:8081" }
# sluice registers itself with the agent of this machine, which asks /readyz. A check of Nomad
# would ask the machine's address, where the admin API is not.
consul: { addresses: ["http://127.0.0.1:8500"], register: {} }
shutdown: { delay: 3s, grace: 30s }
# Jobs such as app.nomad.hcl ask for their routes by tags: each service for its own host.
catalog: { tags: [sluice], claims: [{ service: "*", hosts: ["{service}.example.com"] }] }
EOT
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
