{{- define "serac.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "serac.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "serac.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "serac.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "serac.selectorLabels" -}}
app.kubernetes.io/name: {{ include "serac.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "serac.placement" -}}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "serac.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "serac.metadata" -}}
name: {{ include "serac.fullname" . }}
{{ include "serac.placement" . }}
{{- end -}}

{{- define "serac.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "serac.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "serac.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled -}}true{{- end -}}
{{- end -}}

{{/* What cannot work is refused before anything is applied. */}}
{{- define "serac.check" -}}
{{- if and (not .Values.store.url) (not (hasKey .Values.secretRefs "SERAC_STORE__URL")) -}}
{{- fail "the gateways need one store: set store.url, or secretRefs.SERAC_STORE__URL to a Secret that has the URL" -}}
{{- end -}}
{{- if and .Values.store.url (hasKey .Values.secretRefs "SERAC_STORE__URL") -}}
{{- fail "store.url and secretRefs.SERAC_STORE__URL are both set: remove one of them" -}}
{{- end -}}
{{- if and .Values.store.url (contains "@" .Values.store.url) -}}
{{- fail "store.url holds a user or password: put the URL into a Secret and name it in secretRefs.SERAC_STORE__URL" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling.enabled and keda.enabled would both set the number of gateways: disable one of them" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.serverAddress) -}}
{{- fail "keda.enabled needs keda.serverAddress, the URL of Prometheus" -}}
{{- end -}}
{{- $least := .Values.replicas -}}
{{- if .Values.autoscaling.enabled -}}{{- $least = .Values.autoscaling.minReplicas -}}{{- end -}}
{{- if .Values.keda.enabled -}}{{- $least = .Values.keda.minReplicas -}}{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (ge (int .Values.podDisruptionBudget.maxUnavailable) (int $least)) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable %v lets all %v gateways be evicted at once: lower it, or run more" .Values.podDisruptionBudget.maxUnavailable $least) -}}
{{- end -}}
{{- range $section := list .Values.autoscaling .Values.keda -}}
{{- if gt (int $section.minReplicas) (int $section.maxReplicas) -}}
{{- fail (printf "minReplicas %v is above maxReplicas %v" $section.minReplicas $section.maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}
