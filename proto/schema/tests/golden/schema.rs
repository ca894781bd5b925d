//! The schema as it was frozen: fields, enum values and methods may be added, none changed or removed.

use std::collections::{BTreeMap, BTreeSet};

use potemkin_proto::DESCRIPTOR_SET;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto,
};

use super::frozen;

type Change = fn(&mut FieldDescriptorProto);

/// Everything that a peer of another version relies on, each as one line of text.
type Promises = BTreeSet<String>;

#[test]
fn the_schema_keeps_what_was_frozen() {
    let current = without_comments(FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap());
    let frozen = frozen("descriptor_set.bin", &current.encode_to_vec());
    let frozen = FileDescriptorSet::decode(frozen.as_slice()).unwrap();

    let (frozen, current) = (promises(&frozen), promises(&current));

    let broken: Vec<_> = frozen.difference(&current).collect();
    assert!(broken.is_empty(), "no longer so: {broken:#?}");
}

#[test]
fn field_numbers_are_used_once() {
    let current = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let mut seen = BTreeMap::new();
    for (scope, message) in messages(&current) {
        for field in &message.field {
            let name = field.name().to_owned();
            let other = seen.insert((scope.clone(), field.number()), name);
            assert_eq!(other, None, "{scope}.{} = {}", field.name(), field.number());
        }
    }
    assert!(!seen.is_empty());
}

#[test]
fn a_change_of_a_field_breaks_its_promise() {
    let original = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let changes: [(&str, Change); 4] = [
        ("number", |field| field.number = Some(99)),
        ("name", |field| field.name = Some("renamed".into())),
        ("type", |field| field.r#type = Some(3)),
        ("label", |field| field.label = Some(3)),
    ];
    for (what, change) in changes {
        let mut changed = original.clone();
        let field = &mut changed.file[0].message_type[0].field[0];
        change(field);
        assert!(
            !promises(&original).is_subset(&promises(&changed)),
            "{what}"
        );
    }
}

#[test]
fn an_addition_breaks_no_promise() {
    let original = FileDescriptorSet::decode(DESCRIPTOR_SET).unwrap();
    let mut changed = original.clone();
    let message = &mut changed.file[0].message_type[0];
    message.field.push(FieldDescriptorProto {
        name: Some("added".into()),
        number: Some(1000),
        ..message.field[0].clone()
    });
    assert!(promises(&original).is_subset(&promises(&changed)));
}

/// Comments and positions change without a meaning for peers.
fn without_comments(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

fn promises(set: &FileDescriptorSet) -> Promises {
    let mut promises = Promises::new();
    for (scope, message) in messages(set) {
        promises.extend(message.field.iter().map(|f| field(&scope, message, f)));
        for nested in &message.enum_type {
            enumeration(&scope, nested, &mut promises);
        }
    }
    for file in &set.file {
        for top_level in &file.enum_type {
            enumeration(file.package(), top_level, &mut promises);
        }
        for service in &file.service {
            let scope = format!("{}.{}", file.package(), service.name());
            promises.extend(service.method.iter().map(|m| method(&scope, m)));
        }
    }
    promises
}

/// All messages with their full names, nested ones and maps' entries too.
fn messages(set: &FileDescriptorSet) -> Vec<(String, &DescriptorProto)> {
    let mut found = Vec::new();
    for file in &set.file {
        let package = file.package().to_owned();
        let mut open: Vec<_> = file
            .message_type
            .iter()
            .map(|m| (package.clone(), m))
            .collect();
        while let Some((scope, message)) = open.pop() {
            let name = format!("{scope}.{}", message.name());
            open.extend(message.nested_type.iter().map(|m| (name.clone(), m)));
            found.push((name, message));
        }
    }
    found
}

fn field(scope: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field
        .oneof_index
        .and_then(|index| usize::try_from(index).ok());
    let oneof = oneof.and_then(|index| message.oneof_decl.get(index));
    format!(
        "{scope}.{} = {}: {:?} {:?} {}, oneof {:?}, optional {}",
        field.name(),
        field.number(),
        field.label(),
        field.r#type(),
        field.type_name(),
        oneof.map(|oneof| oneof.name()),
        field.proto3_optional(),
    )
}

fn enumeration(scope: &str, enumeration: &EnumDescriptorProto, promises: &mut Promises) {
    let name = enumeration.name();
    let values = enumeration.value.iter();
    promises.extend(values.map(|v| format!("{scope}.{name}.{} = {}", v.name(), v.number())));
}

fn method(scope: &str, method: &MethodDescriptorProto) -> String {
    format!(
        "{scope}.{}: {} (stream {}) returns {} (stream {})",
        method.name(),
        method.input_type(),
        method.client_streaming(),
        method.output_type(),
        method.server_streaming(),
    )
}
