# The Kubernetes half of `up` (sourced, not run): etcd, kube-apiserver, the controllers, the scheduler and the
# simulated nodes. Expects lib.sh, and the built programs first on PATH.
# shellcheck shell=bash

# kubeconfig FILE URL TOKEN: for the API server whose self-signed certificate is in DIR/kubernetes/tls.
kubeconfig() {
  local file=$1 url=$2 token=$3 ca
  ca=$(base64 -w0 <"$dir/kubernetes/tls/apiserver.crt")
  (umask 077 && cat >"$file.new" <<YAML
apiVersion: v1
kind: Config
current-context: default
clusters: [{name: default, cluster: {server: "$url", certificate-authority-data: $ca}}]
users: [{name: default, user: {token: "$token"}}]
contexts: [{name: default, context: {cluster: default, user: default}}]
YAML
  )
  mv "$file.new" "$file"
}

start_etcd() {
  local client peer
  client=http://127.0.0.1:$(free_port)
  peer=http://127.0.0.1:$(free_port)
  spawn "$dir" etcd etcd --name=default --data-dir="$dir/kubernetes/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls="$client" --advertise-client-urls="$client" \
    --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="default=$peer"
  etcd_url=$client
}

# One identity for each program, so that RBAC and the audit log tell them apart.
make_tokens() {
  local user group
  umask 077
  for user in admin kwok metrics-server argo-rollouts system:kube-controller-manager system:kube-scheduler; do
    group=''
    case $user in admin | kwok | metrics-server | argo-rollouts) group=,system:masters ;; esac
    printf '%s,%s,%s%s\n' "$(openssl rand -hex 16)" "$user" "$user" "$group"
  done >"$dir/kubernetes/tokens.csv"
  umask 022
  openssl genrsa -out "$dir/kubernetes/service-accounts.key" 2048 2>/dev/null
  make_front_proxy
}

# By this certificate an aggregated API server knows that the one in front of it has already asked who is there.
make_front_proxy() {
  local keys=$dir/kubernetes/front-proxy
  mkdir -p "$keys"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=front-proxy-ca -keyout "$keys/ca.key" -out "$keys/ca.crt" 2>/dev/null
  openssl req -new -newkey rsa:2048 -nodes -subj /CN=front-proxy-client -keyout "$keys/client.key" -out "$keys/client.csr" 2>/dev/null
  openssl x509 -req -days 3650 -in "$keys/client.csr" -CA "$keys/ca.crt" -CAkey "$keys/ca.key" -CAcreateserial \
    -out "$keys/client.crt" 2>/dev/null
}

token_of() { awk -F, -v user="$1" '$2 == user {print $1}' "$dir/kubernetes/tokens.csv"; }

start_apiserver() {
  local port keys=$dir/kubernetes
  port=$(free_port)
  server=https://127.0.0.1:$port
  # Kept as a file, one argument a line: second-apiserver starts more of the same from it.
  cat >"$dir/apiserver.args" <<ARGS
--etcd-servers=$etcd_url
--secure-port=$port
--bind-address=127.0.0.1
--advertise-address=127.0.0.1
--cert-dir=$keys/tls
--service-account-issuer=https://kubernetes.default.svc
--service-account-key-file=$keys/service-accounts.key
--service-account-signing-key-file=$keys/service-accounts.key
--authorization-mode=Node,RBAC
--token-auth-file=$keys/tokens.csv
--service-cluster-ip-range=10.0.0.0/16
--requestheader-client-ca-file=$keys/front-proxy/ca.crt
--requestheader-allowed-names=front-proxy-client
--requestheader-username-headers=X-Remote-User
--requestheader-group-headers=X-Remote-Group
--requestheader-extra-headers-prefix=X-Remote-Extra-
--proxy-client-cert-file=$keys/front-proxy/client.crt
--proxy-client-key-file=$keys/front-proxy/client.key
--endpoint-reconciler-type=none
--audit-policy-file=$PANACEA_CONTROL_PLANE/audit-policy.yaml
--audit-log-path=$dir/audit.log
--audit-log-maxsize=2000
--profiling=false
ARGS
  local args
  mapfile -t args <"$dir/apiserver.args"
  spawn "$dir" kube-apiserver kube-apiserver "${args[@]}"
}

# ready_apiserver NAME URL: /readyz answers only once the bootstrap RBAC roles are there.
ready_apiserver() {
  wait_for 90 "$dir" "$1" curl -fsS -m 5 --cacert "$dir/kubernetes/tls/apiserver.crt" \
    -H "Authorization: Bearer $(token_of admin)" "$2/readyz"
}

start_controllers() {
  local keys=$dir/kubernetes
  kubeconfig "$dir/admin.kubeconfig" "$server" "$(token_of admin)"
  kubeconfig "$keys/controllers.kubeconfig" "$server" "$(token_of system:kube-controller-manager)"
  kubeconfig "$keys/scheduler.kubeconfig" "$server" "$(token_of system:kube-scheduler)"
  kubeconfig "$keys/kwok.kubeconfig" "$server" "$(token_of kwok)"

  # A node is NotReady 12 s after its last heartbeat (kwok sends one every 2 s): quick enough for a test to wait for,
  # and six missed heartbeats is more than a busy machine with two cores loses. Autoscalers act every 3 s, not 15.
  spawn "$dir" kube-controller-manager kube-controller-manager --kubeconfig="$keys/controllers.kubeconfig" \
    --service-account-private-key-file="$keys/service-accounts.key" --root-ca-file="$keys/tls/apiserver.crt" \
    --use-service-account-credentials --leader-elect=false --secure-port=0 --profiling=false \
    --kube-api-qps=300 --kube-api-burst=500 --node-monitor-period=2s --node-monitor-grace-period=12s \
    --horizontal-pod-autoscaler-sync-period=3s

  spawn "$dir" kube-scheduler kube-scheduler --kubeconfig="$keys/scheduler.kubeconfig" \
    --leader-elect=false --secure-port=0 --profiling=false --kube-api-qps=300 --kube-api-burst=500

  # The heartbeat is a quarter of the lease duration. By label, not by annotation: kwok sees a label's removal
  # and lets go of the node, so that a test can stop the heartbeat of one.
  local stage first=1 port
  for stage in "$PANACEA_CONTROL_PLANE"/stages/*.yaml; do
    [[ -n $first ]] || printf -- '---\n'
    first=''
    cat "$stage"
  done >"$keys/kwok.yaml"
  # One port for the kubelets of all nodes: the path names the node.
  port=$(free_port)
  spawn "$dir" kwok kwok --kubeconfig="$keys/kwok.kubeconfig" --config="$keys/kwok.yaml" \
    --manage-nodes-with-label-selector=type=kwok --node-lease-duration-seconds=8 --cidr=10.128.0.0/9 --node-ip=127.0.0.1 \
    --node-port="$port" --server-address="127.0.0.1:$port"
}

# It reads the simulated kubelets as often as permitted (10 s). Nobody waits for its first figures, which take two reads.
start_metrics_server() {
  local keys=$dir/kubernetes config=$dir/kubernetes/metrics-server.kubeconfig
  metrics_port=$(free_port)
  kubeconfig "$config" "$server" "$(token_of metrics-server)"
  spawn "$dir" metrics-server metrics-server --kubeconfig="$config" --authentication-kubeconfig="$config" \
    --authorization-kubeconfig="$config" --bind-address=127.0.0.1 --secure-port="$metrics_port" --cert-dir="$keys/metrics-server" \
    --kubelet-insecure-tls --kubelet-use-node-status-port --kubelet-preferred-address-types=InternalIP \
    --kubelet-request-timeout=5s --metric-resolution=10s
}

# Registered only when it responds: while a registered API is unavailable, namespaces are not removed.
register_metrics_server() {
  wait_for 60 "$dir" metrics-server curl -fsSk -m 2 "https://127.0.0.1:$metrics_port/livez"
  admin apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {type: ExternalName, externalName: localhost, ports: [{port: $metrics_port}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system, port: $metrics_port}
YAML
  wait_for 60 "$dir" metrics-server admin get --raw /apis/metrics.k8s.io/v1beta1
}

node_manifest() {
  cat <<YAML
apiVersion: v1
kind: Node
metadata:
  name: $1
  annotations: {kwok.x-k8s.io/node: fake, metrics.k8s.io/resource-metrics-path: /metrics/nodes/$1/metrics/resource}
  labels: {type: kwok, kubernetes.io/hostname: $1, kubernetes.io/os: linux, kubernetes.io/arch: amd64, kubernetes.io/role: agent}
status:
  allocatable: {cpu: "1000", memory: 4Ti, pods: "1000"}
  capacity: {cpu: "1000", memory: 4Ti, pods: "1000"}
YAML
}

admin() { kubectl --kubeconfig "$dir/admin.kubeconfig" "$@"; }

# In one piece because it is tried again: the default service account may be a moment younger than its name.
ready_pod() {
  admin -n default run ready-check --image=example/ready-check:v1 --restart=Never --dry-run=client -o yaml |
    admin apply -f -
}

# The cluster is up when a pod gets through all of it: service account, scheduler, node, ready.
ready_cluster() {
  local name
  for name in node-1 node-2 node-3 node-4 node-5; do node_manifest "$name"; printf -- '---\n'; done | admin apply -f - >/dev/null
  wait_for 60 "$dir" "*" admin -n default get serviceaccount default
  wait_for 30 "$dir" "*" ready_pod
  wait_for 60 "$dir" "*" admin -n default wait --for=condition=Ready --timeout=5s pod/ready-check
  wait_for 60 "$dir" "*" admin wait --for=condition=Ready --timeout=5s node --all
  admin -n default delete pod ready-check --wait=false >/dev/null
}
